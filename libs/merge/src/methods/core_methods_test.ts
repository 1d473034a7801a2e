/** The methods on small matrices, each against a dense float64 statement of its formula. */
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { assertRelativelyClose, frobeniusNorm, relativeError } from "@lora-loom/testing";
import { openDevice } from "@lora-loom/tensor";
import { denseDelta } from "../datafree/fixtures_for_tests.ts";
import {
  bestRank,
  type Dense,
  jacobiSvd,
  mixedAdapters,
  randomFactors,
  runMethod,
  shuffledRanks,
  type Triplet,
  type Weighted,
  weightedDeltas,
  weightedSum,
} from "../datafree/oracle_for_tests.ts";
import { MergeError } from "../errors.ts";
import { compressThenMerge } from "./compress_then_merge.ts";
import { coreSpace } from "./core_space.ts";
import { isoC, isoCts } from "./iso.ts";
import { knots } from "./knots.ts";
import { lines } from "./lines.ts";
import type { ModuleMethod, Parameters } from "./method.ts";
import { modelStock } from "./model_stock.ts";
import { npLora } from "./np_lora.ts";
import { pico } from "./pico.ts";
import { tsvM } from "./tsv_m.ts";

const [ROWS, COLUMNS] = [28, 40];

/** The singular triplets that are not rounding. */
function triplets(matrix: ArrayLike<number>, rows = ROWS, columns = COLUMNS): Triplet[] {
  const all = jacobiSvd(matrix, rows, columns);
  return all.filter(({ sigma }) => sigma > 1e-9 * all[0]!.sigma);
}

/** Σ strengths[i] · left_i right_iᵀ. */
function fromVectors(
  strengths: readonly number[],
  left: readonly (readonly number[])[],
  right: readonly (readonly number[])[],
): Dense {
  return Float64Array.from({ length: ROWS * COLUMNS }, (_, index) => {
    const i = Math.floor(index / COLUMNS), j = index % COLUMNS;
    return strengths.reduce((sum, strength, t) => sum + strength * left[t]![i]! * right[t]![j]!, 0);
  });
}

/** The nearest orthonormal set to vectors: X (XᵀX)^(−1/2), from the singular vectors of the matrix that they make. */
function orthonormalised(vectors: readonly (readonly number[])[]): number[][] {
  const length = vectors[0]!.length;
  const columns = Float64Array.from(
    { length: length * vectors.length },
    (_, index) => vectors[index % vectors.length]![Math.floor(index / vectors.length)]!,
  );
  const parts = triplets(columns, length, vectors.length);
  return vectors.map((_, t) =>
    Array.from({ length }, (_, i) => parts.reduce((sum, { left, right }) => sum + left[i]! * right[t]!, 0))
  );
}

function isoCOracle(sources: readonly Weighted[]): Dense {
  const parts = triplets(weightedSum(weightedDeltas(sources), sources.map(() => 1)));
  const mean = parts.reduce((sum, { sigma }) => sum + sigma, 0) / parts.length;
  return fromVectors(parts.map(() => mean), parts.map(({ left }) => left), parts.map(({ right }) => right));
}

function isoCtsOracle(sources: readonly Weighted[], rank: number, common: number): Dense {
  const share = Math.floor((1 - common) * rank / sources.length);
  const deltas = weightedDeltas(sources);
  const shared = triplets(weightedSum(deltas, sources.map(() => 1))).slice(0, rank - share * sources.length);
  const own = deltas.flatMap((delta) => {
    const residual = delta.slice();
    for (const { left } of shared) {
      for (let j = 0; j < COLUMNS; j++) {
        let along = 0;
        for (let i = 0; i < ROWS; i++) along += left[i]! * delta[i * COLUMNS + j]!;
        for (let i = 0; i < ROWS; i++) residual[i * COLUMNS + j]! -= left[i]! * along;
      }
    }
    return triplets(residual).slice(0, share);
  });
  const all = [...shared, ...own];
  const mean = all.reduce((sum, { sigma }) => sum + sigma, 0) / all.length;
  return fromVectors(
    all.map(() => mean),
    orthonormalised(all.map(({ left }) => left)),
    orthonormalised(all.map(({ right }) => right)),
  );
}

function tsvOracle(sources: readonly Weighted[]): Dense {
  const keep = Math.floor(Math.min(ROWS, COLUMNS) / sources.length);
  const parts = sources.flatMap(({ factors, weight }) =>
    triplets(denseDelta(factors)).slice(0, keep).map((part) => ({ ...part, sigma: weight * part.sigma }))
  );
  return fromVectors(
    parts.map(({ sigma }) => sigma),
    orthonormalised(parts.map(({ left }) => left)),
    orthonormalised(parts.map(({ right }) => right)),
  );
}

function picoOracle(sources: readonly Weighted[]): Dense {
  const width = sources.reduce((sum, { factors }) => sum + factors.rank, 0);
  const stack = new Float64Array(ROWS * width);
  let start = 0;
  for (const { factors: { b, rank, scale } } of sources) {
    for (let i = 0; i < ROWS; i++) {
      for (let r = 0; r < rank; r++) stack[i * width + start + r] = scale * b[i * rank + r]!;
    }
    start += rank;
  }
  const parts = triplets(stack, ROWS, width);
  const total = parts.reduce((sum, { sigma }) => sum + sigma ** 2, 0);
  const sum = weightedSum(weightedDeltas(sources), sources.map(() => 1));
  const calibrated = sum.slice();
  for (const { left, sigma } of parts) {
    const alpha = 1 / (1 + (sources.length - 1) * sigma ** 2 / total);
    for (let j = 0; j < COLUMNS; j++) {
      let along = 0;
      for (let i = 0; i < ROWS; i++) along += left[i]! * sum[i * COLUMNS + j]!;
      for (let i = 0; i < ROWS; i++) calibrated[i * COLUMNS + j]! += (alpha - 1) * left[i]! * along;
    }
  }
  const length = weightedDeltas(sources).reduce((all, delta) => all + frobeniusNorm(delta), 0) /
    sources.length;
  const factor = length / frobeniusNorm(calibrated);
  return calibrated.map((value) => factor * value);
}

function modelStockOracle(sources: readonly Weighted[]): Dense {
  const deltas = weightedDeltas(sources);
  const count = deltas.length;
  let cosines = 0;
  for (const x of deltas) {
    for (const y of deltas) {
      if (x === y) continue;
      cosines += x.reduce((sum, value, i) => sum + value * y[i]!, 0) / frobeniusNorm(x) / frobeniusNorm(y);
    }
  }
  const cosine = Math.max(0, cosines / (count * (count - 1)));
  const ratio = count * cosine / (1 + (count - 1) * cosine);
  return weightedSum(deltas, deltas.map(() => ratio / count));
}

/** ΔW (I − strength · VVᵀ) with the leading right singular vectors V of the first delta. */
function npOracle(sources: readonly Weighted[], strength: number, directions: number): Dense {
  const [style, ...others] = weightedDeltas(sources);
  const protectedOnes = triplets(style!).slice(0, directions);
  const rest = weightedSum(others, others.map(() => 1));
  const out = rest.map((value, i) => value + style![i]!);
  for (const { right } of protectedOnes) {
    for (let i = 0; i < ROWS; i++) {
      let along = 0;
      for (let j = 0; j < COLUMNS; j++) along += rest[i * COLUMNS + j]! * right[j]!;
      for (let j = 0; j < COLUMNS; j++) out[i * COLUMNS + j]! -= strength * along * right[j]!;
    }
  }
  return out;
}

function tiesOf(values: readonly number[]): number {
  const elected = Math.sign(values.reduce((sum, value) => sum + value, 0));
  const agreeing = values.filter((value) => value * elected > 0);
  return agreeing.length === 0 ? 0 : agreeing.reduce((sum, value) => sum + value, 0) / agreeing.length;
}

/** What stays when the ⌊density · n⌋ largest magnitudes are kept. */
function largest(values: readonly number[], density: number): number[] {
  const order = values.map((_, i) => i).sort((i, j) => Math.abs(values[j]!) - Math.abs(values[i]!));
  const kept = new Set(order.slice(0, Math.floor(density * values.length)));
  return values.map((value, i) => kept.has(i) ? value : 0);
}

/** TIES of w_t M_t, the coordinates of the ΔW_t in given vectors, and back. */
function tiesInCoordinates(
  sources: readonly Weighted[],
  left: readonly (readonly number[])[],
  right: readonly (readonly number[])[],
  density: number,
): Dense {
  const coordinates = sources.map(({ factors, weight }) => {
    const delta = denseDelta(factors);
    const all = left.flatMap((u) =>
      right.map((v) => {
        let sum = 0;
        for (let i = 0; i < ROWS; i++) {
          for (let j = 0; j < COLUMNS; j++) sum += u[i]! * delta[i * COLUMNS + j]! * v[j]!;
        }
        return sum;
      })
    );
    return largest(all, density).map((value) => weight * value);
  });
  const merged = coordinates[0]!.map((_, index) => tiesOf(coordinates.map((own) => own[index]!)));
  const pairs = left.flatMap((u) => right.map((v) => [u, v] as const));
  return fromVectors(merged, pairs.map(([u]) => u), pairs.map(([, v]) => v));
}

function coreSpaceOracle(sources: readonly Weighted[], density: number): Dense {
  const width = sources.reduce((sum, { factors }) => sum + factors.rank, 0);
  const ranks = sources.flatMap(({ factors }) =>
    Array.from({ length: factors.rank }, (_, r) => ({ factors, r }))
  );
  const b = Float64Array.from({ length: ROWS * width }, (_, index) => {
    const { factors, r } = ranks[index % width]!;
    return factors.scale * factors.b[Math.floor(index / width) * factors.rank + r]!;
  });
  const a = Float64Array.from(ranks.flatMap(({ factors, r }) => [
    ...factors.a.subarray(r * COLUMNS, (r + 1) * COLUMNS),
  ]));
  const left = triplets(b, ROWS, width).map((part) => part.left);
  const right = triplets(a, width, COLUMNS).map((part) => part.right);
  return tiesInCoordinates(sources, left, right, density);
}

function knotsOracle(sources: readonly Weighted[], density: number): Dense {
  const deltas = sources.map(({ factors }) => denseDelta(factors));
  const width = COLUMNS * deltas.length;
  const joint = Float64Array.from({ length: ROWS * width }, (_, index) => {
    const i = Math.floor(index / width), j = index % width;
    return deltas[Math.floor(j / COLUMNS)]![i * COLUMNS + j % COLUMNS]!;
  });
  const parts = triplets(joint, ROWS, width);
  const own = sources.map(({ weight }, t) =>
    largest(parts.flatMap(({ right }) => right.slice(t * COLUMNS, (t + 1) * COLUMNS)), density)
      .map((value) => weight * value)
  );
  const merged = own[0]!.map((_, index) => tiesOf(own.map((values) => values[index]!)));
  return fromVectors(
    parts.map(({ sigma }) => sigma),
    parts.map(({ left }) => left),
    parts.map((_, r) => merged.slice(r * COLUMNS, (r + 1) * COLUMNS)),
  );
}

interface Case {
  readonly method: ModuleMethod;
  readonly parameters?: Parameters;
  readonly expected: (sources: readonly Weighted[]) => Dense;
}

const CASES: readonly Case[] = [
  { method: isoC, expected: isoCOracle },
  {
    method: isoCts,
    parameters: { rank: 10, common: 0.4 },
    expected: (sources) => isoCtsOracle(sources, 10, 0.4),
  },
  { method: tsvM, expected: tsvOracle },
  { method: pico, expected: picoOracle },
  { method: modelStock, expected: modelStockOracle },
  { method: npLora, expected: (sources) => npOracle(sources, 1, Infinity) },
  {
    method: npLora,
    parameters: { mu: 0.5, directions: 2 },
    expected: (sources) => npOracle(sources, 0.5 / 1.5, 2),
  },
  { method: coreSpace, parameters: { density: 0.4 }, expected: (sources) => coreSpaceOracle(sources, 0.4) },
  { method: knots, parameters: { density: 0.4 }, expected: (sources) => knotsOracle(sources, 0.4) },
];

Deno.test("every method gives its formula, whatever the ranks, scales and weights", async () => {
  for (const { method, parameters, expected } of CASES) {
    for (const seed of [1, 21]) {
      const sources = mixedAdapters(seed);
      const { delta } = await runMethod(method, sources, parameters);
      assertRelativelyClose(delta, expected(sources), 1e-9, `${method.name}:`);
    }
  }
});

Deno.test("every method gives its formula on a GPU to the precision of float32", async () => {
  await using device = await openDevice({ device: "software" });
  for (const { method, parameters, expected } of CASES) {
    const sources = mixedAdapters(1);
    const { delta } = await runMethod(method, sources, parameters, { device });
    assertRelativelyClose(delta, expected(sources), 2e-6, `${method.name}:`);
  }
});

Deno.test("a rank cuts the result to its best approximation, and the report says what that lost", async () => {
  for (const { method, parameters, expected } of CASES) {
    // Of equal singular values any may be kept; Iso's own choice is tested below.
    if (method === isoC || method === isoCts) continue;
    const sources = mixedAdapters();
    const whole = expected(sources);
    const { delta, figures, outputRank } = await runMethod(method, sources, { ...parameters, rank: 4 });
    assertEquals(outputRank, 4);
    const best = bestRank(whole, ROWS, COLUMNS, 4);
    assertRelativelyClose(delta, best, 1e-9, `${method.name}:`);
    assertAlmostEquals(figures.rank_loss as number, relativeError(best, whole), 1e-9, method.name);
  }
});

Deno.test("iso_c keeps the strongest directions of the sum when it is cut", async () => {
  const sources = mixedAdapters();
  const parts = triplets(weightedSum(weightedDeltas(sources), [1, 1, 1]));
  const mean = parts.reduce((sum, { sigma }) => sum + sigma, 0) / parts.length;
  const kept = parts.slice(0, 3);
  const expected = fromVectors(
    [mean, mean, mean],
    kept.map(({ left }) => left),
    kept.map(({ right }) => right),
  );
  const { delta } = await runMethod(isoC, sources, { rank: 3 });
  assertRelativelyClose(delta, expected, 1e-9);
});

/** Methods that give one adapter back, with the parameters under which they do. */
const FAITHFUL: readonly (readonly [ModuleMethod, Parameters])[] = [
  [tsvM, {}],
  [pico, {}],
  [modelStock, {}],
  [npLora, {}],
  [coreSpace, { density: 1 }],
  [knots, { density: 1 }],
  [compressThenMerge, { density: 1 }],
];

Deno.test("one adapter comes back at weight 1, alone and beside a zeroed one", async () => {
  const factors = randomFactors({ rank: 4, scale: 3, seed: 5 });
  const zeroed = { ...randomFactors({ rank: 6, seed: 6 }), b: new Float64Array(ROWS * 6) };
  for (const [method, parameters] of FAITHFUL) {
    const alone = await runMethod(method, [{ factors, weight: 1 }], parameters);
    assertRelativelyClose(alone.delta, denseDelta(factors), 1e-9, `${method.name} alone:`);
    const beside = await runMethod(
      method,
      [{ factors, weight: 1 }, { factors: zeroed, weight: 1 }],
      parameters,
    );
    assertRelativelyClose(beside.delta, denseDelta(factors), 1e-9, `${method.name} beside a zeroed adapter:`);
  }
});

Deno.test("weights w and −w of one adapter give zero, and a zeroed adapter alone stays zero", async () => {
  const factors = randomFactors({ rank: 4, seed: 5 });
  const zeroed = { ...factors, b: new Float64Array(ROWS * 4) };
  const methods = [isoC, tsvM, pico, modelStock, coreSpace, knots, compressThenMerge, lines];
  for (const method of methods) {
    const opposed = await runMethod(method, [{ factors, weight: 0.7 }, { factors, weight: -0.7 }]);
    assert(frobeniusNorm(opposed.delta) < 1e-9, `${method.name}: ${frobeniusNorm(opposed.delta)}`);
  }
  for (const method of [...methods, isoCts, npLora]) {
    const { delta } = await runMethod(method, [{ factors: zeroed, weight: 1 }]);
    assertEquals(frobeniusNorm(delta), 0, method.name);
  }
});

Deno.test("neither the order of the adapters nor that of their ranks changes the result", async () => {
  const sources = mixedAdapters(11);
  const shuffled = sources.map(({ factors, weight }, t) => ({ factors: shuffledRanks(factors, t), weight }));
  for (const method of [isoC, isoCts, tsvM, pico, modelStock, coreSpace, knots, compressThenMerge]) {
    const { delta } = await runMethod(method, sources);
    const other = await runMethod(method, shuffled.reverse());
    assertRelativelyClose(other.delta, delta, 1e-9, method.name);
  }
});

Deno.test("factors that trade a number between α, A and B merge identically where only the delta counts", async () => {
  const sources = mixedAdapters(5);
  const traded = sources.map(({ factors, weight }) => ({
    weight,
    factors: {
      ...factors,
      a: factors.a.map((x) => -3 * x),
      scale: factors.scale / 6,
      b: factors.b.map((x) => -2 * x),
    },
  }));
  for (const method of [isoC, isoCts, tsvM, modelStock, npLora, knots, compressThenMerge, lines]) {
    const { delta } = await runMethod(method, sources);
    assertRelativelyClose((await runMethod(method, traded)).delta, delta, 1e-9, method.name);
  }
});

Deno.test("compress_then_merge finds subspaces that no small turn improves, and merges the coordinates in them", async () => {
  const sources = mixedAdapters(3);
  const { delta, factors, figures } = await runMethod(compressThenMerge, sources, {
    merge: "linear",
    beta: 1,
    rank: 3,
  });
  assertEquals(factors.rank, 3);
  // The result lies in the subspaces, so its singular vectors span them.
  const parts = triplets(delta);
  assertEquals(parts.length, 3);
  const energy = (left: readonly (readonly number[])[], right: readonly (readonly number[])[]) => {
    let sum = 0;
    for (const { factors } of sources) {
      const own = denseDelta(factors);
      for (const u of left) {
        for (const v of right) {
          let along = 0;
          for (let i = 0; i < ROWS; i++) {
            for (let j = 0; j < COLUMNS; j++) along += u[i]! * own[i * COLUMNS + j]! * v[j]!;
          }
          sum += along ** 2;
        }
      }
    }
    return sum;
  };
  const left = parts.map((part) => part.left), right = parts.map((part) => part.right);
  const found = energy(left, right);
  const total = sources.reduce((sum, { factors }) => sum + frobeniusNorm(denseDelta(factors)) ** 2, 0);
  assertAlmostEquals(figures.energy_in_shared_subspaces as number, found / total, 1e-9);
  for (let seed = 1; seed < 20; seed++) {
    const noise = randomFactors({ rank: 3, seed });
    const turn = (vectors: readonly (readonly number[])[], by: ArrayLike<number>) =>
      orthonormalised(
        vectors.map((vector, t) => vector.map((value, i) => value + 0.01 * by[t * vector.length + i]!)),
      );
    assert(energy(turn(left, noise.b), turn(right, noise.a)) < found, `seed ${seed}`);
  }
  // With every entry kept and summed, the result is the sum seen through the subspaces.
  const sum = weightedSum(weightedDeltas(sources), [1, 1, 1]);
  const projected = fromVectors(
    left.flatMap((u) =>
      right.map((v) => fromVectors([1], [u], [v]).reduce((all, value, i) => all + value * sum[i]!, 0))
    ),
    left.flatMap((u) => right.map(() => u)),
    left.flatMap(() => right),
  );
  assertRelativelyClose(delta, projected, 1e-9);
});

Deno.test("lines grows from the mean in the first layer to the sum in the last", async () => {
  const sources = mixedAdapters();
  const modules = [0, 1, 2, 3, 10].map((layer) => `model.layers.${layer}.q_proj`);
  const sum = weightedSum(weightedDeltas(sources), [1, 1, 1]);
  const factorAt = async (module: string, parameters: Parameters = {}) => {
    const { delta, figures } = await runMethod(lines, sources, parameters, {
      module,
      modules: [...modules, "lm_head"],
    });
    assertRelativelyClose(delta, sum.map((value) => value * (figures.layer_factor as number)), 1e-9);
    return figures.layer_factor as number;
  };
  assertAlmostEquals(await factorAt(modules[0]!), 1 / 3);
  assertAlmostEquals(await factorAt(modules[2]!), 1 / 3 + 2 / 3 * 0.2);
  assertAlmostEquals(await factorAt(modules[4]!), 1);
  assertAlmostEquals(await factorAt("lm_head"), 1 / 3);
  assertAlmostEquals(await factorAt(modules[4]!, { alpha: 0.25, beta: 2 }), 2.25);
});

Deno.test("np_lora with mu 0 is the plain sum, and protects nothing where the protected adapter is absent", async () => {
  const sources = mixedAdapters();
  const sum = weightedSum(weightedDeltas(sources), [1, 1, 1]);
  assertRelativelyClose((await runMethod(npLora, sources, { mu: 0 })).delta, sum, 1e-9);
  assertRelativelyClose(
    (await runMethod(npLora, sources, { protected: 7 }, { adapters: 8 })).delta,
    sum,
    1e-9,
  );
});

Deno.test("a rank above Σr is refused by name", async () => {
  for (
    const method of [isoC, isoCts, tsvM, pico, modelStock, npLora, coreSpace, knots, compressThenMerge, lines]
  ) {
    const error = await assertRejects(() => runMethod(method, mixedAdapters(), { rank: 11 }), MergeError);
    assertEquals(error.code, "rank_out_of_range", method.name);
  }
});
