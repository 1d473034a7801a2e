/**
 * How long the float64 decisions of one module take on the CPU, by size of the pool: `deno run libs/lego/bench/decisions.ts`.
 * Units are random (the hardest case: nothing is near anything), the Gram matrices are given.
 */
import { decide } from "../src/decide.ts";
import type { FactorEntries } from "../src/factor_entries.ts";
import { lego, type LegoOptions, legoPlus } from "../src/options.ts";
import { seededRandom } from "../src/random.ts";
import type { StackedFactors } from "../src/unit_pool.ts";

const DIMENSIONS = 512;
const REPEATS = 3;

function randomGram(n: number, seed: number): Float64Array<ArrayBuffer> {
  const random = seededRandom(seed);
  const rows = Float64Array.from({ length: n * DIMENSIONS }, () => random() + random() + random() - 1.5);
  const gram = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let total = 0;
      for (let p = 0; p < DIMENSIONS; p++) total += rows[i * DIMENSIONS + p]! * rows[j * DIMENSIONS + p]!;
      gram[i * n + j] = gram[j * n + i] = total;
    }
  }
  return gram;
}

/** Stands in for the device, so that only decisions are timed. */
function constantEntries(n: number): FactorEntries {
  const ones = (length: number) => new Float64Array(length).fill(1);
  return {
    largest: (combination) => Promise.resolve({ a: ones(combination?.k ?? n), b: ones(combination?.k ?? n) }),
    signs: ({ k }) => Promise.resolve(ones(k)),
  };
}

async function fastest(stack: StackedFactors, options: LegoOptions, entries: FactorEntries): Promise<number> {
  let best = Infinity;
  for (let repeat = 0; repeat < REPEATS; repeat++) {
    const start = performance.now();
    await decide(stack, options, entries);
    best = Math.min(best, performance.now() - start);
  }
  return best;
}

const VARIANTS: Record<string, LegoOptions> = {
  "lego": lego,
  "lego, k = r": { ...lego, rank: 1 },
  "lego+": legoPlus,
  "lego+ one per adapter": { ...legoPlus, one_per_adapter: true },
  "lego, kmeans 10": { ...lego, optimizer: "kmeans", restarts: 10 },
  "lego, svd basis": { ...lego, basis: "svd" },
};

console.log("pool        variant                   ms");
for (const [adapters, rank] of [[7, 8], [5, 16], [5, 64]] as const) {
  const n = adapters * rank;
  const stack: StackedFactors = {
    gramA: randomGram(n, 1),
    gramB: randomGram(n, 2),
    ranks: new Array<number>(adapters).fill(rank),
    factors: new Array<number>(adapters).fill(1),
  };
  for (const [name, options] of Object.entries(VARIANTS)) {
    const milliseconds = await fastest(
      stack,
      options.rank ? { ...options, rank } : options,
      constantEntries(n),
    );
    console.log(
      `${`${adapters} × r${rank}`.padEnd(11)} ${name.padEnd(24)} ${milliseconds.toFixed(1).padStart(7)}`,
    );
  }
}
