import { ROOT } from "../house/workspace.ts";

/** What a step found: nothing to complain of, or the complaints as text. */
export interface StepResult {
  readonly ok: boolean;
  readonly output: string;
}

/** One of the checks behind `deno task check`. */
export interface Step {
  readonly name: string;
  readonly run: () => Promise<StepResult>;
}

/** Runs Deno with `args` in the project's folder; what it prints is the complaint. */
export async function runDeno(...args: string[]): Promise<StepResult> {
  const command = new Deno.Command(Deno.execPath(), {
    args,
    cwd: ROOT,
    env: { NO_COLOR: "1", NX_DAEMON: "false" },
    stdin: "null",
  });
  const { success, stdout, stderr } = await command.output();
  const decoder = new TextDecoder();
  const output = `${decoder.decode(stdout)}\n${decoder.decode(stderr)}`;
  // Deno names every file it looks at, and its own stack where it fails.
  return {
    ok: success,
    output: output.replace(/^(?:Check .*|Stack backtrace:|\s+\d+: <unknown>)\n?/gm, "").trim(),
  };
}

/** The result of a check that gives a list of complaints. */
export function complaints(lines: readonly string[]): StepResult {
  return { ok: lines.length === 0, output: lines.join("\n") };
}
