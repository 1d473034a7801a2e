import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { assertRelativelyClose, frobeniusNorm, relativeError } from "@lora-loom/testing";
import {
  bestRank,
  type Dense,
  mixedAdapters,
  randomFactors,
  runMethod,
  shuffledRanks,
  type Weighted,
  weightedSum,
} from "../datafree/oracle_for_tests.ts";
import { denseDelta } from "../datafree/fixtures_for_tests.ts";
import { openDevice } from "@lora-loom/tensor";
import { MergeError } from "../errors.ts";
import { dareLinear, dareLinearSvd, dareTies, dareTiesSvd } from "./dare.ts";
import { della } from "./della.ts";
import { magnitudePrune, magnitudePruneSvd } from "./magnitude_prune.ts";
import { ties, tiesSvd } from "./ties.ts";

const [ROWS, COLUMNS] = [28, 40];
const ALL = [
  ties,
  tiesSvd,
  dareLinear,
  dareLinearSvd,
  dareTies,
  dareTiesSvd,
  magnitudePrune,
  magnitudePruneSvd,
];

/** What stays when the ⌊density · n⌋ largest magnitudes are kept, by sorting all of them. */
function largest(matrix: Dense, density: number): Dense {
  const order = Array.from(matrix.keys()).sort((i, j) =>
    Math.abs(matrix[j]!) - Math.abs(matrix[i]!) || i - j
  );
  const kept = new Set(order.slice(0, Math.floor(density * matrix.length)));
  return matrix.map((value, index) => kept.has(index) ? value : 0);
}

/** TIES (arXiv 2306.01708, algorithm 1), entry by entry, over w x. */
function electAndAverage(matrices: readonly Dense[], weights: readonly number[], byTotal: boolean): Dense {
  return matrices[0]!.map((_, i) => {
    const votes = matrices.map((matrix, t) => weights[t]! * matrix[i]!);
    const elected = Math.sign(
      votes.map((vote) => byTotal ? vote : Math.sign(vote)).reduce((sum, vote) => sum + vote),
    );
    const agreeing = votes.filter((vote) => vote * elected > 0);
    return agreeing.length === 0 ? 0 : agreeing.reduce((sum, vote) => sum + vote) / agreeing.length;
  });
}

function deltasOf(sources: readonly Weighted[]): Dense[] {
  return sources.map(({ factors }) => denseDelta(factors));
}

function weightsOf(sources: readonly Weighted[]): number[] {
  return sources.map(({ weight }) => weight);
}

Deno.test("ties and ties_svd give the best rank-k of TIES on the deltas, whatever the ranks, scales and weights", async () => {
  const sources = mixedAdapters();
  for (const sign of ["total", "frequency"]) {
    for (const density of [0.2, 0.7, 1]) {
      const trimmed = deltasOf(sources).map((delta) => largest(delta, density));
      const dense = electAndAverage(trimmed, weightsOf(sources), sign === "total");
      for (const method of [ties, tiesSvd]) {
        const { delta, figures } = await runMethod(method, sources, {
          density,
          majority_sign_method: sign,
          rank: 6,
        });
        const expected = bestRank(dense, ROWS, COLUMNS, 6);
        assertRelativelyClose(delta, expected, 1e-8, `${method.name}, density ${density}, ${sign}:`);
        assertAlmostEquals(figures.rank_loss as number, relativeError(expected, dense), 1e-8);
      }
    }
  }
});

Deno.test("magnitude_prune gives the best rank-k of the sum of the pruned deltas", async () => {
  const sources = mixedAdapters(7);
  const pruned = deltasOf(sources).map((delta) => largest(delta, 0.3));
  const expected = bestRank(weightedSum(pruned, weightsOf(sources)), ROWS, COLUMNS, 4);
  for (const method of [magnitudePrune, magnitudePruneSvd]) {
    const { delta } = await runMethod(method, sources, { density: 0.3, rank: 4 });
    assertRelativelyClose(delta, expected, 1e-8, method.name);
  }
});

Deno.test("on a GPU the same entries are kept, and the result agrees to the precision of float32", async () => {
  await using device = await openDevice({ device: "software" });
  for (const method of [...ALL, della]) {
    for (const peft_compatible of [false, true]) {
      const sources = peft_compatible
        ? [1, 2].map((seed) => ({ factors: randomFactors({ rank: 5, seed }), weight: 1 }))
        : mixedAdapters(5);
      const here = await runMethod(method, sources, { peft_compatible, rank: 5 });
      const there = await runMethod(method, sources, { peft_compatible, rank: 5 }, { device });
      assertRelativelyClose(
        there.delta,
        here.delta,
        1e-5,
        `${method.name}, peft_compatible ${peft_compatible}:`,
      );
    }
  }
});

Deno.test("keeping every rank gives the elementwise result itself", async () => {
  const sources = mixedAdapters(3);
  const dense = electAndAverage(
    deltasOf(sources).map((delta) => largest(delta, 0.5)),
    weightsOf(sources),
    true,
  );
  const { delta } = await runMethod(ties, sources, { rank: ROWS });
  assertRelativelyClose(delta, dense, 1e-8);
});

Deno.test("one adapter comes back at weight 1 and density 1, alone and beside a zeroed one", async () => {
  const factors = randomFactors({ rank: 4, scale: 3, seed: 5 });
  const zeroed = { ...randomFactors({ rank: 6, seed: 6 }), b: new Float64Array(ROWS * 6) };
  for (const method of ALL) {
    const alone = await runMethod(method, [{ factors, weight: 1 }], { density: 1 });
    assertRelativelyClose(alone.delta, denseDelta(factors), 1e-8, `${method.name} alone:`);
    const beside = await runMethod(method, [{ factors, weight: 1 }, { factors: zeroed, weight: 1 }], {
      density: 1,
    });
    assertRelativelyClose(beside.delta, denseDelta(factors), 1e-8, `${method.name} beside a zeroed adapter:`);
  }
});

Deno.test("the same adapter twice comes back: at ½ from sums, at 1 from means", async () => {
  const factors = randomFactors({ rank: 4, seed: 5 });
  for (const method of ALL) {
    const weight = method.name.includes("ties") ? 1 : 0.5;
    const { delta } = await runMethod(method, [{ factors, weight }, { factors, weight }], { density: 1 });
    assertRelativelyClose(delta, denseDelta(factors), 1e-8, method.name);
  }
});

Deno.test("weights w and −w of one adapter give zero", async () => {
  const factors = randomFactors({ rank: 4, seed: 5 });
  for (const method of [ties, tiesSvd, magnitudePrune, magnitudePruneSvd]) {
    const { delta } = await runMethod(method, [{ factors, weight: 0.7 }, { factors, weight: -0.7 }]);
    assertEquals(frobeniusNorm(delta), 0, method.name);
  }
});

Deno.test("neither the order of the adapters nor that of their ranks changes TIES and pruning", async () => {
  const sources = mixedAdapters(11);
  const shuffled = sources.map(({ factors, weight }, t) => ({ factors: shuffledRanks(factors, t), weight }))
    .reverse();
  for (const method of [ties, tiesSvd, magnitudePrune, magnitudePruneSvd]) {
    const { delta } = await runMethod(method, sources);
    const other = await runMethod(method, shuffled);
    assertRelativelyClose(other.delta, delta, 1e-8, method.name);
  }
});

Deno.test("dare_linear keeps a Bernoulli share of the entries, rescaled, the same ones for the same seed", async () => {
  const factors = randomFactors({ rank: 2, inFeatures: 160, outFeatures: 120, seed: 9 });
  const original = denseDelta(factors);
  const density = 0.3;
  const { delta } = await runMethod(dareLinear, [{ factors, weight: 1 }], { density, rank: 120 });
  const ratios = delta.map((value, i) => value / original[i]!);
  // Entries near zero are known only to the rounding of the fit.
  const clear = Array.from(ratios.keys()).filter((i) => Math.abs(original[i]!) > 1e-2);
  const kept = clear.filter((i) => Math.abs(ratios[i]!) > 1);
  for (const i of clear) {
    const expected = Math.abs(ratios[i]!) > 1 ? 1 / density : 0;
    assert(Math.abs(ratios[i]! - expected) < 1e-3, `entry ${i} became ${ratios[i]} of itself`);
  }
  const deviation = Math.sqrt(density * (1 - density) / clear.length);
  assert(
    Math.abs(kept.length / clear.length - density) < 4 * deviation,
    `${kept.length} of ${clear.length} kept`,
  );
  const again = await runMethod(dareLinear, [{ factors, weight: 1 }], { density, rank: 120 });
  assertEquals(again.delta, delta);
  const other = await runMethod(dareLinear, [{ factors, weight: 1 }], { density, rank: 120 }, { seed: 43 });
  assert(relativeError(other.delta, delta) > 0.5);
});

Deno.test("dare_ties averages over the seeds to the value that independent masks have", async () => {
  // One entry of two adapters, x and y > 0: the mean of the kept ones, each divided by d.
  const [x, y, density] = [1, 3, 0.5];
  const expected = density * density * (x + y) / 2 / density + density * (1 - density) * (x + y) / density;
  const constant = (value: number) => ({
    ...randomFactors({ rank: 1, seed: 1 }),
    scale: value,
    a: new Float64Array(COLUMNS).fill(1),
    b: new Float64Array(ROWS).fill(1),
  });
  const sources = [{ factors: constant(x), weight: 1 }, { factors: constant(y), weight: 1 }];
  let sum = 0;
  const seeds = 20;
  for (let seed = 0; seed < seeds; seed++) {
    const { delta } = await runMethod(dareTies, sources, { density, rank: ROWS }, { seed });
    sum += delta.reduce((total, value) => total + value, 0) / delta.length;
  }
  // One entry has standard deviation below 2.5, and 22400 of them are averaged.
  assertAlmostEquals(sum / seeds, expected, 4 * 2.5 / Math.sqrt(seeds * ROWS * COLUMNS));
});

Deno.test("DARE draws other entries for A, B, other modules and other adapters", async () => {
  const factors = randomFactors({ rank: 4, seed: 5 });
  const run = (module: string) =>
    runMethod(dareLinearSvd, [{ factors, weight: 1 }], { rank: ROWS }, { module });
  assert(relativeError((await run("layers.0.q_proj")).delta, (await run("layers.1.q_proj")).delta) > 0.5);
  const twice = await runMethod(dareLinearSvd, [{ factors, weight: 1 }, { factors, weight: -1 }], {
    rank: ROWS,
  });
  assert(frobeniusNorm(twice.delta) > 0.5 * frobeniusNorm(denseDelta(factors)));
});

Deno.test("peft_compatible merges A and B apart and refuses what PEFT refuses", async () => {
  const unequal = mixedAdapters();
  const equal = unequal.map(({ weight }, t) => ({ factors: randomFactors({ rank: 4, seed: t }), weight }));
  for (const method of [ties, dareLinear, dareTies, magnitudePrune]) {
    const ranks = await assertRejects(
      () => runMethod(method, unequal, { peft_compatible: true }),
      MergeError,
    );
    assertEquals(ranks.code, "ranks_differ");
    const rank = await assertRejects(
      () => runMethod(method, equal, { peft_compatible: true, rank: 3 }),
      MergeError,
    );
    assertEquals(rank.code, "parameters_conflict");
    const { factors } = await runMethod(method, equal, { peft_compatible: true });
    assertEquals(factors.rank, 4);
  }
  for (const method of [tiesSvd, dareLinearSvd, dareTiesSvd, magnitudePruneSvd]) {
    await runMethod(method, unequal, { peft_compatible: true });
  }
});

Deno.test("dare_linear with peft_compatible at density 1 gives PEFT's linear, whose A carries the sign", async () => {
  const sources = [
    { factors: randomFactors({ rank: 3, scale: 2, seed: 1 }), weight: 0.7 },
    { factors: randomFactors({ rank: 3, scale: 0.5, seed: 2 }), weight: -0.4 },
  ];
  const root = sources.map(({ factors, weight }) => Math.sqrt(Math.abs(weight * factors.scale)));
  const expected = weightedSum(sources.map(({ factors }) => factors.a), [root[0]!, -root[1]!]);
  const { factors } = await runMethod(dareLinear, sources, { peft_compatible: true, density: 1 });
  assertRelativelyClose(factors.a, expected, 1e-8);
  assertRelativelyClose(factors.b, weightedSum(sources.map(({ factors }) => factors.b), root), 1e-8);
});

Deno.test("a rank above the sizes of all modules is refused by name", async () => {
  for (const method of [...ALL, della]) {
    const error = await assertRejects(
      () => runMethod(method, mixedAdapters(), { rank: ROWS + 1 }),
      MergeError,
    );
    assertEquals(error.code, "rank_out_of_range", method.name);
  }
});
