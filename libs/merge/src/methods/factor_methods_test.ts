/** robust_merge and della, against dense float64 statements of their formulas. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { assertRelativelyClose } from "@lora-loom/testing";
import { denseDelta } from "../datafree/fixtures_for_tests.ts";
import {
  mixedAdapters,
  randomFactors,
  runMethod,
  type Weighted,
  weightedDeltas,
  weightedSum,
} from "../datafree/oracle_for_tests.ts";
import { MergeError } from "../errors.ts";
import { della } from "./della.ts";
import { robustMerge } from "./robust_merge.ts";

const [ROWS, COLUMNS, RANK] = [28, 40, 3];

function equalRanks(): Weighted[] {
  return [
    { factors: randomFactors({ rank: RANK, scale: 2, seed: 1 }), weight: 1 },
    { factors: randomFactors({ rank: RANK, scale: 0.5, seed: 2 }), weight: -0.4 },
  ];
}

function largest(values: Float64Array, density: number): Float64Array<ArrayBuffer> {
  const order = Array.from(values.keys()).sort((i, j) => Math.abs(values[j]!) - Math.abs(values[i]!));
  const kept = new Set(order.slice(0, Math.floor(density * values.length)));
  return Float64Array.from(values, (value, i) => kept.has(i) ? value : 0);
}

Deno.test("robust_merge gives its formula, with cross terms and without", async () => {
  const sources = equalRanks();
  const density = 0.4;
  const parts = sources.map(({ factors: { a, b, scale }, weight }) => {
    const keptA = largest(a, density);
    const ratio = Array.from({ length: RANK }, (_, r) => {
      let whole = 0, kept = 0;
      for (let j = 0; j < COLUMNS; j++) {
        whole += Math.abs(a[r * COLUMNS + j]!);
        kept += Math.abs(keptA[r * COLUMNS + j]!);
      }
      return whole / kept;
    });
    return { a: keptA, b: largest(b, density), ratio, factor: weight * scale };
  });
  const share = (t: number, r: number) =>
    parts[t]!.ratio[r]! / parts.reduce((sum, { ratio }) => sum + ratio[r]!, 0);
  const entry = (i: number, j: number, crossed: boolean) => {
    let sum = 0;
    parts.forEach(({ b, factor }, t) =>
      parts.forEach(({ a }, u) => {
        if (t !== u && !crossed) return;
        for (let r = 0; r < RANK; r++) sum += factor * b[i * RANK + r]! * share(t, r) * a[r * COLUMNS + j]!;
      })
    );
    return 2 * sum;
  };
  for (const cross_terms of [true, false]) {
    const { delta, factors } = await runMethod(robustMerge, sources, { density, cross_terms });
    assertEquals(factors.rank, cross_terms ? RANK : 2 * RANK);
    const expected = Float64Array.from(
      { length: ROWS * COLUMNS },
      (_, index) => entry(Math.floor(index / COLUMNS), index % COLUMNS, cross_terms),
    );
    assertRelativelyClose(delta, expected, 1e-12, `cross terms ${cross_terms}:`);
  }
});

Deno.test("robust_merge gives one adapter back at scaling 1, and refuses unequal ranks by name", async () => {
  const { factors } = equalRanks()[0]!;
  const { delta } = await runMethod(robustMerge, [{ factors, weight: 1 }], { density: 1, scaling: 1 });
  assertRelativelyClose(delta, denseDelta(factors), 1e-12);
  const error = await assertRejects(() => runMethod(robustMerge, mixedAdapters()), MergeError);
  assertEquals(error.code, "ranks_differ");
});

Deno.test("della without election and dropping is the sum", async () => {
  const sources = mixedAdapters();
  const { delta } = await runMethod(della, sources, {
    density: 1,
    epsilon: 0,
    majority_sign_method: "none",
    rank: ROWS,
  });
  assertRelativelyClose(delta, weightedSum(weightedDeltas(sources), [1, 1, 1]), 1e-8);
});

Deno.test("della keeps entries with a probability that grows with their rank in the row, divided by it", async () => {
  const factors = randomFactors({ rank: 2, inFeatures: 200, outFeatures: 150, seed: 9 });
  const original = denseDelta(factors);
  const [density, epsilon, parts] = [0.5, 0.3, 4];
  const { delta } = await runMethod(della, [{ factors, weight: 1 }], {
    density,
    epsilon,
    majority_sign_method: "none",
    rank: 150,
  });
  const kept = new Array<number>(parts).fill(0);
  for (let i = 0; i < 150; i++) {
    const row = Array.from({ length: 200 }, (_, j) => i * 200 + j)
      .sort((x, y) => Math.abs(original[x]!) - Math.abs(original[y]!));
    row.forEach((index, rank) => {
      const probability = density - epsilon + 2 * epsilon * rank / 199;
      const ratio = delta[index]! / original[index]!;
      const isKept = ratio > 0.5;
      // Entries near zero are known only to the rounding of the fit.
      if (Math.abs(original[index]!) > 1e-2) {
        assert(Math.abs(ratio - (isKept ? 1 / probability : 0)) < 1e-3, `entry ${index}: ${ratio}`);
      }
      if (isKept) kept[Math.floor(rank * parts / 200)]!++;
    });
  }
  kept.forEach((count, part) => {
    const expected = density - epsilon + 2 * epsilon * (part + 0.5) / parts;
    const found = count / (150 * 200 / parts);
    assert(
      Math.abs(found - expected) < 4 * 0.5 / Math.sqrt(150 * 200 / parts),
      `part ${part}: ${found}, not ${expected}`,
    );
  });
});

Deno.test("della refuses a density and an epsilon that make no probabilities", async () => {
  for (const parameters of [{ density: 0.1, epsilon: 0.1 }, { density: 0.95, epsilon: 0.1 }]) {
    const error = await assertRejects(() => runMethod(della, mixedAdapters(), parameters), MergeError);
    assertEquals(error.code, "parameters_conflict");
  }
});
