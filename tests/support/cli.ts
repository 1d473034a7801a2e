import { fromFileUrl } from "./paths.ts";

/** What a finished command left. */
export interface CliResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly seconds: number;
}

/** An error as `--json` prints it. */
export interface CliError {
  readonly code: string;
  readonly message: string;
  readonly fix: string;
  readonly where: string;
}

const MAIN = fromFileUrl(new URL("../../apps/runner/src/main.ts", import.meta.url));

/** A command that is still running. */
export function startCli(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", MAIN, ...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    env: { ...env },
  }).spawn();
}

/** Runs the runner as a user does, in a process of its own. */
export async function runCli(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<CliResult> {
  return await finish(startCli(args, env));
}

/** Runs a shell command line in which `$LOOM` is the runner, for limits that only a shell can set. */
export async function runInShell(
  script: string,
  env: Readonly<Record<string, string>> = {},
): Promise<CliResult> {
  const loom = `${Deno.execPath()} run -A --no-check ${MAIN}`;
  const command = new Deno.Command("bash", {
    args: ["-c", script],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    env: { LOOM: loom, ...env },
  });
  return await finish(command.spawn());
}

async function finish(child: Deno.ChildProcess): Promise<CliResult> {
  const start = performance.now();
  const { code, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr), seconds: (performance.now() - start) / 1000 };
}

/** Runs a command with `--json` and parses the one object that it prints. */
export async function runJson<T>(args: readonly string[]): Promise<T> {
  const { code, stdout, stderr } = await runCli([...args, "--json"]);
  if (code !== 0) throw new Error(`${args.join(" ")} exited with ${code}: ${stderr}`);
  return JSON.parse(stdout) as T;
}

/** Whether this user may mount a small file system, in a namespace of its own. */
export async function mayMount(): Promise<boolean> {
  return (await runInShell("unshare --user --map-root-user --mount bash -c 'mount -t tmpfs none /mnt'"))
    .code === 0;
}
