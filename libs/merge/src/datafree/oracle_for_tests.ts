import { gaussians, seeded } from "@lora-loom/testing";
import { CpuDevice, type Device } from "@lora-loom/tensor";
import type { ModuleMethod, Parameters } from "../methods/method.ts";
import type { HostFactors } from "./entries.ts";
import { denseDelta, uploadSource } from "./fixtures_for_tests.ts";

/** A dense row-major matrix of the shape of the module under test. */
export type Dense = Float64Array<ArrayBuffer>;

/** Factors with a weight, as a recipe pairs them. */
export interface Weighted {
  readonly factors: HostFactors;
  readonly weight: number;
}

/** Random factors whose singular values fall off, as trained ones do. */
export function randomFactors(
  { rank, inFeatures = 40, outFeatures = 28, scale = 2, seed }: {
    rank: number;
    inFeatures?: number;
    outFeatures?: number;
    scale?: number;
    seed: number;
  },
): HostFactors {
  return {
    rank,
    inFeatures,
    outFeatures,
    scale,
    a: gaussians(rank * inFeatures, seed),
    b: gaussians(outFeatures * rank, seed + 1000).map((value, index) => value / (1 + index % rank)),
  };
}

/** Three adapters that differ in rank, scale and weight, one of them subtracted. */
export function mixedAdapters(seed = 1): Weighted[] {
  return [
    { factors: randomFactors({ rank: 3, scale: 2, seed }), weight: 1 },
    { factors: randomFactors({ rank: 5, scale: 0.5, seed: seed + 1 }), weight: 0.6 },
    { factors: randomFactors({ rank: 2, scale: 4, seed: seed + 2 }), weight: -0.4 },
  ];
}

/** What a parameter declares as its default, and what the test gives instead. */
function withDefaults(method: ModuleMethod, parameters: Parameters): Parameters {
  const defaults = method.parameters.flatMap((spec) =>
    spec.default === undefined ? [] : [[spec.name, spec.default]]
  );
  return { ...Object.fromEntries(defaults), ...parameters };
}

/** Where and as which module a method runs. */
export interface RunOptions {
  readonly device?: Device;
  readonly seed?: number;
  readonly module?: string;
  /** All modules of the merge. */
  readonly modules?: readonly string[];
  /** How many adapters the recipe has; default: as many as have this module. */
  readonly adapters?: number;
}

/** Runs a method on one module, as the engine does, and returns the merged delta and what it reported. */
export async function runMethod(
  method: ModuleMethod,
  sources: readonly Weighted[],
  parameters: Parameters = {},
  {
    device = new CpuDevice(),
    seed = 42,
    module = "layers.0.q_proj",
    modules = [module],
    adapters = sources.length,
  }: RunOptions = {},
) {
  const resolved = withDefaults(method, parameters);
  const ranks = sources.map(({ factors }) => factors.rank);
  const { inFeatures, outFeatures } = sources[0]!.factors;
  method.check?.({ modules: [{ name: module, ranks, inFeatures, outFeatures }], adapters }, resolved);
  const uploaded = sources.map(({ factors, weight }, t) => uploadSource(device, factors, weight, t));
  const rank = method.outputRank(ranks, resolved);
  const merged = await method.merge(uploaded, {
    module,
    device,
    parameters: resolved,
    rank,
    seed,
    modules,
    adapters,
  });
  const a = Float64Array.from(await device.download(merged.a));
  const b = Float64Array.from(await device.download(merged.b));
  const found: HostFactors = { rank: merged.a.shape[0]!, inFeatures, outFeatures, scale: 1, a, b };
  for (const tensor of [merged.a, merged.b, ...uploaded.flatMap((source) => [source.a, source.b])]) {
    tensor.dispose();
  }
  return { delta: denseDelta(found), factors: found, figures: merged.figures ?? {}, outputRank: rank };
}

/** Σ of matrices with factors. */
export function weightedSum(matrices: readonly ArrayLike<number>[], weights: readonly number[]): Dense {
  return Float64Array.from(
    matrices[0]!,
    (_, i) => matrices.reduce((sum, matrix, t) => sum + weights[t]! * matrix[i]!, 0),
  );
}

/** w ΔW of every source. */
export function weightedDeltas(sources: readonly Weighted[]): Dense[] {
  return sources.map(({ factors, weight }) => denseDelta(factors).map((value) => weight * value));
}

/** One singular value with its unit vectors. */
export interface Triplet {
  readonly sigma: number;
  readonly left: readonly number[];
  readonly right: readonly number[];
}

/** Singular triplets by one-sided Jacobi rotations (Hestenes 1958): slow, and nothing of it is in the code under test. */
export function jacobiSvd(matrix: ArrayLike<number>, rows: number, columns: number): Triplet[] {
  if (columns > rows) {
    const flipped = Float64Array.from(
      { length: rows * columns },
      (_, index) => matrix[(index % rows) * columns + Math.floor(index / rows)]!,
    );
    return jacobiSvd(flipped, columns, rows).map(({ sigma, left, right }) => ({
      sigma,
      left: right,
      right: left,
    }));
  }
  const images = Array.from(
    { length: columns },
    (_, j) => Array.from({ length: rows }, (_, i) => matrix[i * columns + j]!),
  );
  const basis = images.map((_, j) => images.map((_, i) => i === j ? 1 : 0));
  const product = (x: readonly number[], y: readonly number[]) =>
    x.reduce((sum, value, i) => sum + value * y[i]!, 0);
  for (let sweep = 0, rotated = true; rotated && sweep < 40; sweep++) {
    rotated = false;
    for (let p = 0; p < columns; p++) {
      for (let q = p + 1; q < columns; q++) {
        const [pp, qq, pq] = [
          product(images[p]!, images[p]!),
          product(images[q]!, images[q]!),
          product(images[p]!, images[q]!),
        ];
        if (Math.abs(pq) <= 1e-15 * Math.sqrt(pp * qq) || pq === 0) continue;
        rotated = true;
        const angle = Math.atan2(2 * pq, pp - qq) / 2;
        const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
        for (const vectors of [images, basis]) {
          const [x, y] = [vectors[p]!, vectors[q]!];
          vectors[p] = x.map((value, i) => cos * value + sin * y[i]!);
          vectors[q] = x.map((value, i) => cos * y[i]! - sin * value);
        }
      }
    }
  }
  return images.map((image, j) => ({ image, sigma: Math.sqrt(product(image, image)), right: basis[j]! }))
    .sort((x, y) => y.sigma - x.sigma)
    .map(({ image, sigma, right }) => ({
      sigma,
      right,
      left: image.map((value) => sigma === 0 ? 0 : value / sigma),
    }));
}

/** The best approximation of a rank, by a full singular value decomposition. */
export function bestRank(matrix: Dense, rows: number, columns: number, k: number): Dense {
  const out = new Float64Array(rows * columns);
  for (const { sigma, left, right } of jacobiSvd(matrix, rows, columns).slice(0, k)) {
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) out[i * columns + j]! += sigma * left[i]! * right[j]!;
    }
  }
  return out;
}

/** The same delta with its ranks in another order. */
export function shuffledRanks(factors: HostFactors, seed: number): HostFactors {
  const random = seeded(seed);
  const order = Array.from({ length: factors.rank }, (_, r) => ({ r, key: random() }))
    .sort((x, y) => x.key - y.key).map(({ r }) => r);
  const { rank, inFeatures, a, b } = factors;
  return {
    ...factors,
    a: a.map((_, index) => a[order[Math.floor(index / inFeatures)]! * inFeatures + index % inFeatures]!),
    b: b.map((_, index) => b[Math.floor(index / rank) * rank + order[index % rank]!]!),
  };
}
