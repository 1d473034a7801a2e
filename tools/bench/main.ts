/**
 * Runs the benchmarks: the suite behind the benchmark page, or one of the programs in the members' `bench` folders.
 *
 *     deno task bench                          the suite, at sizes that suit the device at hand
 *       [--device auto] [--profile safe]       where to run
 *       [--torch FILE]                         what tests/bench/torch_peer.py measured on the same machine, to compare with
 *       [--json FILE]                          keep the results
 *       [--write docs/benchmarks.md]           put the results beside the page and make its tables anew
 *       [--from FILE]                          measure nothing; take the results that a run has left there
 *       [--commit HASH]                        the commit that is measured, where git cannot say
 *     deno task bench --list                   all programs
 *     deno task bench --all                    all of them, one after the other
 *     deno task bench lego/decisions [ARG]...  one of them, with its own arguments
 */
import { basename, join } from "node:path";
import { parseArgs } from "@std/cli/parse-args";
import { listFiles, readMembers, ROOT } from "../house/workspace.ts";
import { renewFile } from "../figures/page.ts";
import { type Results, slug, type TorchFigures } from "../figures/results.ts";
import { runSuite } from "../figures/suite.ts";
import { unknownOptions } from "../unknown_options.ts";

/** A benchmark of a member. */
export interface Benchmark {
  /** `member/file`, without extension. */
  readonly name: string;
  /** The program, from the workspace's root. */
  readonly path: string;
}

/** Every benchmark of the workspace at `root`. */
export function listBenchmarks(root: string): Benchmark[] {
  return readMembers(root).flatMap((member) => {
    const folder = `${member.path}/bench/`;
    const isProgram = (file: string) =>
      file.startsWith(folder) && /^[^/]+\.ts$/.test(file.slice(folder.length)) && !file.endsWith("_test.ts");
    return listFiles(root, member.path, isProgram)
      .map((path) => ({ name: `${basename(member.path)}/${basename(path, ".ts")}`, path }));
  }).filter(({ path }) => path !== "tools/bench/main.ts");
}

/** The first sentence of a program's opening comment. */
function describe(path: string): string {
  const comment = /^\/\*\*([\s\S]*?)\*\//.exec(Deno.readTextFileSync(join(ROOT, path)))?.[1] ?? "";
  const text = comment.replace(/^\s*\* ?/gm, "").replace(/\s+/g, " ").trim();
  return /^.*?[.:](?= |$)/.exec(text)?.[0].replace(/:$/, ".") ?? text;
}

async function run({ name, path }: Benchmark, args: readonly string[]): Promise<boolean> {
  console.log(`\n# ${name}: ${describe(path)}\n`);
  const command = new Deno.Command(Deno.execPath(), { args: ["run", "-A", path, ...args], cwd: ROOT });
  return (await command.spawn().status).success;
}

/** Puts results beside a page and makes its tables anew. */
export async function writePage(page: string, results: Results): Promise<void> {
  const folder = page.replace(/\.md$/, "");
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(
    join(folder, `${slug(results.device.name)}.json`),
    `${JSON.stringify(results, null, 2)}\n`,
  );
  await Deno.writeTextFile(page, (await renewFile(page)).after);
}

async function readJson<T>(path: string): Promise<T> {
  return JSON.parse(await Deno.readTextFile(path)) as T;
}

/** The suite: measures, or takes what was measured, and leaves it where it was asked for. */
async function suite(args: readonly string[]): Promise<number> {
  const flags = parseArgs([...args], {
    string: ["device", "profile", "torch", "json", "write", "from", "commit"],
    default: { device: "auto", profile: "safe" },
  });
  const unknown = unknownOptions(flags, ["device", "profile", "torch", "json", "write", "from", "commit"]);
  if (unknown.length > 0 || flags._.length > 0) {
    console.error(`there is no option ${[...unknown, ...flags._].join(", ")}`);
    return 2;
  }
  const measured = flags.from === undefined ? await runSuite(flags) : await readJson<Results>(flags.from);
  const results = flags.torch === undefined
    ? measured
    : { ...measured, torch: await readJson<TorchFigures>(flags.torch) };
  if (flags.json !== undefined) {
    await Deno.writeTextFile(flags.json, `${JSON.stringify(results, null, 2)}\n`);
  }
  if (flags.write !== undefined) await writePage(flags.write, results);
  return 0;
}

async function programs(wanted: readonly Benchmark[], args: readonly string[]): Promise<number> {
  const failed: string[] = [];
  for (const benchmark of wanted) if (!await run(benchmark, args)) failed.push(benchmark.name);
  if (failed.length > 0) console.error(`failed: ${failed.join(", ")}`);
  return failed.length === 0 ? 0 : 1;
}

async function main([first, ...args]: readonly string[]): Promise<number> {
  const benchmarks = listBenchmarks(ROOT);
  if (first === "--list") {
    for (const { name, path } of benchmarks) console.log(`${name.padEnd(24)} ${describe(path)}`);
    return 0;
  }
  if (first === "--all") return await programs(benchmarks, args);
  if (first === undefined || first.startsWith("-")) {
    return await suite(first === undefined ? [] : [first, ...args]);
  }
  const wanted = benchmarks.filter(({ name }) => name === first);
  if (wanted.length > 0) return await programs(wanted, args);
  console.error(
    `there is no benchmark ${first}; there are ${benchmarks.map(({ name }) => name).join(", ")}`,
  );
  return 2;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
