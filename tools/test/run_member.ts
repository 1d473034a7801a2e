import { join } from "node:path";
import { parseJunit, type TestResult } from "./junit.ts";

/** What the tests of one member gave. */
export interface MemberRun {
  readonly tests: readonly TestResult[];
  /** Failures that belong to no single test: a file that does not load, a process that died. */
  readonly faults: readonly string[];
  /** What the tests printed, from the first error on where there is one. */
  readonly output: string;
  readonly seconds: number;
}

/** How to run. */
export interface RunOptions {
  /** Further arguments for `deno test`, such as `--filter`. */
  readonly args?: readonly string[];
  /** Shows the output as it comes. */
  readonly live?: boolean;
  /** After this many milliseconds the tests count as hanging. */
  readonly timeout?: number;
}

const TIMEOUT = 30 * 60 * 1000;

/** Runs test files in one `deno test` process, from `root`. Types are not checked: `deno task check` does that. */
export async function runTests(
  root: string,
  files: readonly string[],
  { args = [], live = false, timeout = TIMEOUT }: RunOptions = {},
): Promise<MemberRun> {
  const folder = await Deno.makeTempDir({ prefix: "lora-loom-junit-" });
  const report = join(folder, "junit.xml");
  const start = performance.now();
  try {
    const command = new Deno.Command(Deno.execPath(), {
      args: ["test", "-A", "--no-check", "--parallel", `--junit-path=${report}`, ...args, ...files],
      cwd: root,
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    });
    const child = command.spawn();
    let isHanging = false;
    const timer = setTimeout(() => {
      isHanging = true;
      child.kill("SIGKILL");
    }, timeout);
    const [stdout, stderr] = await Promise.all([collect(child.stdout, live), collect(child.stderr, live)]);
    const { code, signal } = await child.status;
    clearTimeout(timer);
    const tests = parseJunit(await readReport(report));
    const faults = findFaults(stdout);
    const isExplained = faults.length > 0 || tests.some(({ outcome }) => outcome === "failed");
    if (isHanging) faults.push(`the tests did not end within ${timeout / 1000} s`);
    else if (code !== 0 && !isExplained) faults.push(`deno test ended with ${signal ?? `status ${code}`}`);
    const output = shorten(`${stdout}\n${stderr}`);
    return { tests, faults, output, seconds: (performance.now() - start) / 1000 };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The part of the output that tells what failed, without what Dawn says about every device. */
function shorten(output: string): string {
  const withoutWarnings = output.replace(/^Warning: maxDynamic\w+ artificially reduced .*\n?/gm, "");
  const errors = withoutWarnings.search(/^ ?ERRORS ?$/m);
  return withoutWarnings.slice(Math.max(0, errors)).trim();
}

/** Files that failed outside any test; the report leaves them out. */
function findFaults(output: string): string[] {
  return [...new Set([...output.matchAll(/^(\S.*) \(uncaught error\)$/gm)].map(([, file]) => file!))];
}

async function collect(stream: ReadableStream<Uint8Array>, live: boolean): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    if (live) Deno.stdout.writeSync(chunk);
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

async function readReport(path: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}
