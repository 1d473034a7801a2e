/**
 * Runs the tests of every member and ends with the plain line `N passed, N failed`.
 *
 *     deno task test [MEMBER or FILE]... [--filter NAME] [--verbose]
 *
 * A test that was ignored counts as failed: none may pass because something was left out. Before the tests the set-up
 * makes sure that WebGPU has an adapter.
 */
import { parseArgs } from "@std/cli/parse-args";
import { listFiles, memberOf, readMembers, ROOT } from "../house/workspace.ts";
import { SetupError } from "../setup/errors.ts";
import { setUp } from "../setup/setup.ts";
import { unknownOptions } from "../unknown_options.ts";
import { type MemberRun, runTests } from "./run_member.ts";

/** Tests that take more seconds than this are named. */
const SLOW = 30;

const TEST = /_test\.[mc]?[jt]sx?$/;

/** The test files of the workspace at `root` by member, limited to `wanted` members, folders or files where given. */
export function groupTests(root: string, wanted: readonly string[]): Map<string, string[]> {
  const members = readMembers(root);
  const groups = new Map<string, string[]>();
  for (const { path, name } of members) {
    const files = listFiles(root, path, (file) => TEST.test(file)).filter((file) =>
      memberOf(file, members)!.path === path &&
      (wanted.length === 0 || wanted.some((one) => one === name || isWithin(file, one)))
    );
    if (files.length > 0) groups.set(path, files);
  }
  return groups;
}

function isWithin(file: string, folder: string): boolean {
  const path = folder.replace(/^\.\//, "").replace(/\/$/, "");
  return file === path || file.startsWith(`${path}/`);
}

/** How many tests of a run passed and failed; ignored ones failed. */
export function count({ tests, faults }: MemberRun): { passed: number; failed: number } {
  const passed = tests.filter(({ outcome }) => outcome === "passed").length;
  return { passed, failed: tests.length - passed + faults.length };
}

function report(member: string, run: MemberRun, live: boolean): void {
  const { passed, failed } = count(run);
  const verdict = failed > 0 ? `  ${failed} FAILED` : "";
  if (failed > 0 && !live) console.log(`\n${run.output}\n`);
  console.log(
    `${member.padEnd(14)} ${String(passed).padStart(5)} passed  ${run.seconds.toFixed(1)} s${verdict}`,
  );
  for (const { file, name, outcome, seconds } of run.tests) {
    if (seconds > SLOW) console.log(`  slow, ${seconds.toFixed(0)} s: ${file}: ${name}`);
    if (outcome === "failed") console.log(`  failed: ${file}: ${name}`);
    if (outcome === "ignored") console.log(`  ignored, which counts as failed: ${file}: ${name}`);
  }
  for (const fault of run.faults) console.log(`  failed outside a test: ${fault}`);
}

async function ensureSetUp(): Promise<boolean> {
  try {
    const { message } = await setUp(ROOT, (line) => console.error(`set-up: ${line}`));
    console.error(`set-up: ${message}`);
    return true;
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.error(`set-up: ${error.message}\n  what to do: ${error.fix}`);
    return false;
  }
}

async function main(): Promise<number> {
  const flags = parseArgs(Deno.args, { boolean: ["verbose"], string: ["_", "filter"] });
  const unknown = unknownOptions(flags, ["verbose", "filter"]);
  if (unknown.length > 0) {
    console.error(`there is no option ${unknown.join(", ")}; there are --filter NAME and --verbose`);
    return 2;
  }
  const groups = groupTests(ROOT, flags._.map(String));
  if (groups.size === 0) {
    console.error(`no tests in ${flags._.join(", ")}`);
    return 2;
  }
  let passed = 0;
  let failed = await ensureSetUp() ? 0 : 1;
  if (failed === 0) {
    const args = flags.filter === undefined ? [] : ["--filter", flags.filter];
    for (const [member, files] of groups) {
      const run = await runTests(ROOT, files, { args, live: flags.verbose });
      report(member, run, flags.verbose);
      const counts = count(run);
      passed += counts.passed;
      failed += counts.failed;
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  return failed > 0 || passed === 0 ? 1 : 0;
}

if (import.meta.main) Deno.exit(await main());
