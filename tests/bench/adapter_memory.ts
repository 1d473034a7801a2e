/**
 * Peak memory of reading, inspecting, converting and merging an adapter of 1 GiB, beside the same with one of its 256 modules:
 *
 *     deno run -A tests/bench/adapter_memory.ts [--modules 256]
 */
import { parseArgs } from "@std/cli/parse-args";
import { repositoryPath, withFolder } from "../support/paths.ts";
import { writeSparseAdapter } from "../support/sparse_adapter.ts";

const MEBIBYTE = 2 ** 20;
const options = parseArgs(Deno.args, { string: ["modules"], default: { modules: "256" } });
const modules = Number(options.modules);

const MAIN = repositoryPath("apps/runner/src/main.ts");
const READ = repositoryPath("tests/formats/read_all.ts");

/** A process's largest resident size in bytes and its seconds; the system's own `time` counts them. */
async function measure(program: string, args: readonly string[]): Promise<{ peak: number; seconds: number }> {
  const start = performance.now();
  const command = new Deno.Command("bash", {
    args: [
      "-c",
      `"$@" >/dev/null & child=$!; peak=0; while kill -0 $child 2>/dev/null; do ` +
      `size=$(awk '/VmHWM/ {print $2}' /proc/$child/status 2>/dev/null); [ "\${size:-0}" -gt $peak ] && peak=$size; sleep 0.05; ` +
      `done; wait $child || exit 1; echo $peak`,
      "measure",
      Deno.execPath(),
      "run",
      "-A",
      "--no-check",
      program,
      ...args,
    ],
  });
  const { code, stdout, stderr } = await command.output();
  if (code !== 0) throw new Error(new TextDecoder().decode(stderr));
  return {
    peak: Number(new TextDecoder().decode(stdout)) * 1024,
    seconds: (performance.now() - start) / 1000,
  };
}

await withFolder(async (folder) => {
  const [one, all] = [`${folder}/one.safetensors`, `${folder}/all.safetensors`];
  await writeSparseAdapter(one, 1);
  await writeSparseAdapter(all, modules);
  const bytes = (await Deno.stat(all)).size;
  console.log(
    `an adapter of ${(bytes / MEBIBYTE).toFixed(0)} MiB in ${modules} modules of 4 MiB; peaks in MiB`,
  );
  const recipe = async (path: string, output: string) => {
    const text = {
      method: "cat",
      adapters: [{ path }, { path, name: "again" }],
      output: { path: output },
      device: "cpu",
    };
    await Deno.writeTextFile(`${output}.yaml`, JSON.stringify(text));
    return `${output}.yaml`;
  };
  const WORK: readonly (readonly [
    name: string,
    program: string,
    args: (path: string, out: string) => Promise<string[]>,
  ])[] = [
    ["reading every factor", READ, (path) => Promise.resolve([path])],
    ["convert --to peft", MAIN, (path, out) => Promise.resolve(["convert", path, out, "--to", "peft"])],
    ["merge, cat of two", MAIN, async (path, out) => ["merge", await recipe(path, out)]],
    // Its spectra, at rank 128 in float64, take minutes.
    ["inspect", MAIN, (path) => Promise.resolve(["inspect", path])],
  ];
  for (const [name, program, args] of WORK) {
    const small = await measure(
      program,
      await args(one, `${folder}/one-${WORK.findIndex(([n]) => n === name)}`),
    );
    const large = await measure(
      program,
      await args(all, `${folder}/all-${WORK.findIndex(([n]) => n === name)}`),
    );
    const mib = (peak: number) => (peak / MEBIBYTE).toFixed(0).padStart(5);
    console.log(
      `${name.padEnd(22)} one module ${mib(small.peak)}, all ${mib(large.peak)}, more by ${
        mib(large.peak - small.peak)
      }` +
        `   (${large.seconds.toFixed(1)} s)`,
    );
  }
});
