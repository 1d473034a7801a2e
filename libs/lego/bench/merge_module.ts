/**
 * How long one module of a 7B model takes, its factors being on the device already:
 * `deno run -A libs/lego/bench/merge_module.ts [device] [rank]`. The device's part is what a merge takes beyond the decisions that
 * `decisions.ts` times.
 */
import {
  type AdapterFactors,
  lego,
  legoPlus,
  type MergedFactors,
  mergeModule,
  truncateSum,
} from "@lora-loom/lego";
import { type DeviceChoice, openDevice } from "@lora-loom/tensor";
import { seededRandom } from "../src/random.ts";

const SIZE = 4096, ADAPTERS = 5, REPEATS = 3;
const rank = Number(Deno.args[1] ?? 64);
await using device = await openDevice({ device: (Deno.args[0] ?? "auto") as DeviceChoice });

function randoms(count: number, seed: number): Float32Array<ArrayBuffer> {
  const random = seededRandom(seed);
  return Float32Array.from({ length: count }, () => random() + random() - 1);
}

const adapters: AdapterFactors[] = Array.from({ length: ADAPTERS }, (_, t) => ({
  a: device.upload(randoms(rank * SIZE, 2 * t), [rank, SIZE]),
  b: device.upload(randoms(SIZE * rank, 2 * t + 1), [SIZE, rank]),
  scale: 1,
  weight: 1,
}));

/** Fastest of some runs after one that compiles the kernels. */
async function milliseconds(merge: () => Promise<MergedFactors>): Promise<number> {
  let best = Infinity;
  for (let repeat = 0; repeat <= REPEATS; repeat++) {
    const start = performance.now();
    const { a, b } = await merge();
    await device.finish();
    if (repeat > 0) best = Math.min(best, performance.now() - start);
    a.dispose();
    b.dispose();
  }
  return best;
}

console.log(`${device.info.name}: ${ADAPTERS} × r${rank}, ${SIZE} × ${SIZE}, k = ${rank}`);
console.log(
  `lego         ${(await milliseconds(() => mergeModule(adapters, { ...lego, rank }))).toFixed(0)} ms`,
);
console.log(
  `lego+        ${(await milliseconds(() => mergeModule(adapters, { ...legoPlus, rank }))).toFixed(0)} ms`,
);
console.log(`truncateSum  ${(await milliseconds(() => truncateSum(adapters, { rank }))).toFixed(0)} ms`);
