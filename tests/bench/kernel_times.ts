/**
 * Runs a recipe with timestamps around every dispatch and prints what each kernel cost.
 *
 *     deno run -A tests/bench/kernel_times.ts RECIPE [--set KEY=VALUE]… [--device auto]
 *
 * Dispatches do not overlap in such a run, so it is a little slower than usual. The merged adapter is removed.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "@std/cli/parse-args";
import { loadRecipe, runMerge } from "@lora-loom/merge";
import { type DeviceChoice, kernelTimes, openDevice } from "@lora-loom/tensor";

const flags = parseArgs(Deno.args, {
  string: ["device", "set"],
  collect: ["set"],
  default: { device: "auto" },
});
const [path] = flags._;
if (typeof path !== "string") {
  throw new Error("name a recipe: deno run -A tests/bench/kernel_times.ts RECIPE");
}

const folder = await mkdtemp(join(tmpdir(), "loom-kernels-"));
try {
  const recipe = await loadRecipe(path, { set: flags.set, output: join(folder, "merged") });
  await using device = await openDevice({ device: flags.device as DeviceChoice, timeKernels: true });
  const start = performance.now();
  await runMerge(recipe, { device });
  const seconds = (performance.now() - start) / 1000;
  const times = await kernelTimes(device);
  const total = times.reduce((sum, time) => sum + time.seconds, 0);
  console.log(`${device.info.name}: ${seconds.toFixed(1)} s, ${total.toFixed(1)} s of it in kernels\n`);
  console.log("kernel".padEnd(48), "dispatches".padStart(10), "seconds".padStart(9), "share".padStart(7));
  for (const { kernel, dispatches, seconds } of times) {
    console.log(
      kernel.padEnd(48),
      String(dispatches).padStart(10),
      seconds.toFixed(3).padStart(9),
      `${(100 * seconds / total).toFixed(1)} %`.padStart(7),
    );
  }
} finally {
  await rm(folder, { recursive: true });
}
