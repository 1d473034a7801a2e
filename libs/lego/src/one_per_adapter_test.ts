import { assert, assertEquals, assertLess, assertThrows } from "@std/assert";
import { gaussians } from "@lora-loom/testing";
import { LegoError } from "./errors.ts";
import { onePerAdapter } from "./one_per_adapter.ts";
import { Partition } from "./partition.ts";

const OWNERS = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3];
const N = OWNERS.length;

function randomKernel(seed: number): Float64Array<ArrayBuffer> {
  const d = 3;
  const x = gaussians(N * d, seed);
  return Float64Array.from({ length: N * N }, (_, index) => {
    let total = 0;
    for (let p = 0; p < d; p++) total += x[Math.floor(index / N) * d + p]! * x[(index % N) * d + p]!;
    return total;
  });
}

/** The least inertia over all ways to place the units of one adapter, the others staying. */
function bestPlacement(
  kernel: Float64Array,
  labels: readonly number[],
  units: readonly number[],
  clusters: number,
): number {
  let least = Infinity;
  const place = (i: number, placed: readonly number[]) => {
    if (i === units.length) {
      least = Math.min(least, new Partition(kernel, N, clusters, placed).inertia());
      return;
    }
    for (let c = 0; c < clusters; c++) {
      if (units.slice(0, i).some((unit) => placed[unit] === c)) continue;
      place(i + 1, placed.with(units[i]!, c));
    }
  };
  place(0, labels);
  return least;
}

Deno.test("onePerAdapter() leaves no adapter that could be placed better", () => {
  for (let seed = 0; seed < 12; seed++) {
    const kernel = randomKernel(seed);
    for (const clusters of [3, 4]) {
      const found = onePerAdapter(kernel, N, clusters, OWNERS, 100);
      for (const adapter of [0, 1, 2, 3]) {
        const units = OWNERS.flatMap((owner, i) => owner === adapter ? [i] : []);
        const best = bestPlacement(kernel, [...found.labels], units, clusters);
        assert(
          found.inertia() <= best + 1e-9 * found.trace,
          `seed ${seed}: ${found.inertia()} against ${best}`,
        );
      }
    }
  }
});

Deno.test("onePerAdapter() improves on its first placement when given sweeps", () => {
  let improved = 0;
  for (let seed = 0; seed < 12; seed++) {
    const kernel = randomKernel(seed);
    const [first, more] = [onePerAdapter(kernel, N, 3, OWNERS, 0), onePerAdapter(kernel, N, 3, OWNERS, 100)];
    assert(more.inertia() <= first.inertia() + 1e-12 * first.trace);
    if (more.inertia() < first.inertia() - 1e-6 * first.trace) improved++;
  }
  assertLess(0, improved);
});

Deno.test("onePerAdapter() needs as many clusters as the largest adapter has units", () => {
  const error = assertThrows(() => onePerAdapter(randomKernel(1), N, 2, OWNERS, 10), LegoError);
  assertEquals(error.code, "rank_out_of_range");
});
