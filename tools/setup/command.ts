import { SetupError } from "./errors.ts";

/** How to run a command. */
export interface CommandOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** After this many milliseconds the command is ended. */
  readonly timeout: number;
}

/** What a command left behind. */
export interface CommandResult {
  readonly success: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command to its end, whatever its exit status. */
export async function tryCommand(
  [program, ...args]: readonly [string, ...string[]],
  { env = {}, cwd, timeout }: CommandOptions,
): Promise<CommandResult> {
  const signal = AbortSignal.timeout(timeout);
  const command = new Deno.Command(program, {
    args,
    env: { ...env, LC_ALL: "C" },
    ...(cwd === undefined ? {} : { cwd }),
    stdin: "null",
    signal,
  });
  let output: Deno.CommandOutput;
  try {
    output = await command.output();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      return { success: false, stdout: "", stderr: `${program}: not found` };
    }
    throw error;
  }
  if (signal.aborted) {
    throw new SetupError(
      "command_timed_out",
      `${program} ${args[0] ?? ""} gave no answer in ${Math.round(timeout / 1000)} s`,
      "check the network or the package mirror, then run: deno task setup",
      [program, ...args].join(" "),
    );
  }
  const decoder = new TextDecoder();
  return {
    success: output.success,
    stdout: decoder.decode(output.stdout),
    stderr: decoder.decode(output.stderr),
  };
}

/** Runs a command that has to succeed, and gives what it printed. */
export async function runCommand(
  command: readonly [string, ...string[]],
  options: CommandOptions,
): Promise<string> {
  const { success, stdout, stderr } = await tryCommand(command, options);
  if (!success) {
    throw new SetupError(
      "command_failed",
      `${command[0]} failed: ${firstErrors(stderr || stdout)}`,
      "check the network or the package mirror, then run: deno task setup",
      command.join(" "),
    );
  }
  return stdout;
}

/** What apt marks as errors, else the end of the text. */
function firstErrors(text: string): string {
  const lines = text.trim().split("\n");
  const errors = lines.filter((line) => line.startsWith("E: "));
  return (errors.length > 0 ? errors.slice(0, 2) : lines.slice(-3)).join(" ");
}
