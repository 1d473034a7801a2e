/**
 * Runs the benchmarks: programs in the `bench` folders of the members, which print what they measured.
 *
 *     deno task bench                          all of them, one after the other
 *     deno task bench --list                   what there is
 *     deno task bench lego/decisions [ARG]...  one of them, with its own arguments
 */
import { basename, join } from "node:path";
import { listFiles, readMembers, ROOT } from "../house/workspace.ts";

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

async function main([first, ...args]: readonly string[]): Promise<number> {
  const benchmarks = listBenchmarks(ROOT);
  if (first === "--list") {
    for (const { name, path } of benchmarks) console.log(`${name.padEnd(24)} ${describe(path)}`);
    return 0;
  }
  const wanted = first === undefined ? benchmarks : benchmarks.filter(({ name }) => name === first);
  if (wanted.length === 0) {
    console.error(
      `there is no benchmark ${first}; there are ${benchmarks.map(({ name }) => name).join(", ")}`,
    );
    return 2;
  }
  const failed: string[] = [];
  for (const benchmark of wanted) if (!await run(benchmark, args)) failed.push(benchmark.name);
  if (failed.length > 0) console.error(`failed: ${failed.join(", ")}`);
  return failed.length === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
