/** The methods that PEFT has under these names, against what PEFT 0.21 itself produced (tests/fixtures/tiny-llama/peft). */
import { assert, assertLess } from "@std/assert";
import { assertRelativelyClose, relativeError } from "@lora-loom/testing";
import { denseDelta, readFixture } from "../datafree/fixtures_for_tests.ts";
import { type Dense, runMethod, type Weighted } from "../datafree/oracle_for_tests.ts";
import { svd } from "@lora-loom/tensor";
import { magnitudePrune } from "./magnitude_prune.ts";
import { linear } from "./linear.ts";
import { svd as svdMethod } from "./svd.ts";
import { ties, tiesSvd } from "./ties.ts";

const language = await readFixture("examples/tiny-llama/adapters/language");
const category = await readFixture("examples/tiny-llama/adapters/category");

/** Both adapters at one module, at the weights that PEFT was given. */
function halves(module: string): Weighted[] {
  return [language, category].map((adapter) => ({ factors: adapter.get(module)!, weight: 0.5 }));
}

Deno.test("linear with peft_compatible gives PEFT's delta", async () => {
  const reference = await readFixture("tests/fixtures/tiny-llama/peft/linear_mean_2");
  for (const [module, peft] of reference) {
    const { delta } = await runMethod(linear, halves(module), { peft_compatible: true });
    assertRelativelyClose(delta, denseDelta(peft), 1e-6, `${module}:`);
  }
});

Deno.test("linear with peft_compatible subtracts an adapter of negative weight, as PEFT 0.21 does", async () => {
  const module = "model.layers.0.self_attn.q_proj";
  const factors = language.get(module)!;
  const { delta } = await runMethod(linear, [{ factors, weight: -0.5 }], { peft_compatible: true });
  assertRelativelyClose(delta, denseDelta(factors).map((value) => -0.5 * value), 1e-6);
});

Deno.test("svd gives PEFT's delta as accurately as PEFT computed it", async () => {
  const reference = await readFixture("tests/fixtures/tiny-llama/peft/svd_mean_2");
  for (const [module, peft] of reference) {
    const sources = halves(module);
    const { delta } = await runMethod(svdMethod, sources, { rank: 8 });
    // PEFT decomposed in float32: its Vh is orthonormal only to 5e-5, and its delta is no better than that.
    assertRelativelyClose(delta, denseDelta(peft), 6e-5, `${module}:`);
    const [x, y] = sources.map((source) => denseDelta(source.factors));
    const sum = x!.map((value, i) => (value + y![i]!) / 2);
    const [ours, theirs] = [relativeError(delta, sum), relativeError(denseDelta(peft), sum)];
    // The best approximation is at least as close as PEFT's, and closer by no more than that accuracy squared.
    assertLess(ours, theirs + 1e-12, module);
    assertLess(theirs - ours, 1e-7, module);
  }
});

Deno.test("ties and magnitude_prune with peft_compatible give PEFT's factors to the last bit", async () => {
  for (
    const [method, folder] of [[ties, "ties_mean_2"], [magnitudePrune, "magnitude_prune_mean_2"]] as const
  ) {
    const reference = await readFixture(`tests/fixtures/tiny-llama/peft/${folder}`);
    assert(reference.size === 28);
    for (const [module, { a, b }] of reference) {
      const { factors } = await runMethod(method, halves(module), { density: 0.5, peft_compatible: true });
      const label = `${method.name} ${module}:`;
      assertRelativelyClose(Float32Array.from(factors.a), a, 1e-7, label);
      assertRelativelyClose(Float32Array.from(factors.b), b, 1e-7, label);
    }
  }
});

/** TIES of two deltas at weights ½ and density ½, stated apart from the code. */
function tiesOfHalves(sources: readonly Weighted[]): Dense {
  const trimmed = sources.map(({ factors }) => {
    const delta = denseDelta(factors);
    const sorted = delta.map(Math.abs).sort();
    const limit = sorted[sorted.length / 2]!;
    return delta.map((value) => Math.abs(value) >= limit ? value : 0);
  });
  return trimmed[0]!.map((x, i) => {
    const y = trimmed[1]![i]!;
    if (x * y > 0) return (x + y) / 4;
    return (Math.abs(x) > Math.abs(y) ? x : y) / 2;
  });
}

/** The best approximation by a full decomposition, which the method under test does not use. */
function bestRank(matrix: Dense, rows: number, columns: number, k: number): Dense {
  const { values, left, right } = svd(matrix, rows, columns);
  const out = new Float64Array(rows * columns);
  for (let r = 0; r < k; r++) {
    for (let i = 0; i < rows; i++) {
      const factor = values[r]! * left[r * rows + i]!;
      for (let j = 0; j < columns; j++) out[i * columns + j]! += factor * right[r * columns + j]!;
    }
  }
  return out;
}

Deno.test("ties_svd gives PEFT's delta as accurately as PEFT computed it, with and without peft_compatible", async () => {
  const reference = await readFixture("tests/fixtures/tiny-llama/peft/ties_svd_mean_2");
  for (const [module, peft] of reference) {
    // Exact decompositions of the wide modules take long and add nothing.
    const isSmall = peft.outFeatures * peft.inFeatures <= 256 * 128;
    const sources = halves(module);
    const dense = tiesOfHalves(sources);
    for (const peft_compatible of isSmall ? [false, true] : [true]) {
      const { delta } = await runMethod(tiesSvd, sources, { density: 0.5, rank: 8, peft_compatible });
      // PEFT decomposed in float32: its Vh is orthonormal only to 5e-5, and its delta is no better than that.
      assertRelativelyClose(delta, denseDelta(peft), 1e-4, `${module}:`);
      if (isSmall) {
        assertRelativelyClose(
          delta,
          bestRank(dense, peft.outFeatures, peft.inFeatures, 8),
          1e-6,
          `${module}:`,
        );
      }
      // Both are the best approximation: their distances to the dense result agree to second order.
      assertLess(
        Math.abs(relativeError(delta, dense) - relativeError(denseDelta(peft), dense)),
        1e-8,
        module,
      );
    }
  }
});
