import { type Device, gram, type Tensor, truncateFromGrams } from "@lora-loom/tensor";
import type { MergedFactors, WeightedFactors } from "../methods/method.ts";
import { stackFactors, type StackPart } from "../methods/stack_factors.ts";
import type { DeltaFigures } from "../report/figures.ts";

/** The Gram matrices of stacked factors, size × size, in float64. */
interface Grams {
  readonly gramA: Float64Array;
  readonly gramB: Float64Array;
  readonly size: number;
}

async function toFloat64(device: Device, tensor: Tensor): Promise<Float64Array> {
  const values = await device.download(tensor);
  return values instanceof Float64Array ? values : Float64Array.from(values);
}

async function gramsOf(device: Device, parts: readonly StackPart[]): Promise<Grams> {
  const { a, b } = stackFactors(device, parts);
  using stackedA = a;
  using stackedB = b;
  using gramA = gram(stackedA, { of: "rows" });
  using gramB = gram(stackedB, { of: "columns" });
  return {
    gramA: await toFloat64(device, gramA),
    gramB: await toFloat64(device, gramB),
    size: stackedA.shape[0]!,
  };
}

/** ⟨X, Y⟩ of the deltas X and Y that ranges of the stack make: Σ (G_A)_ij (G_B)_ij. */
function inner({ gramA, gramB, size }: Grams, [x, xEnd]: Range, [y, yEnd]: Range): number {
  let sum = 0;
  for (let i = x; i < xEnd; i++) {
    for (let j = y; j < yEnd; j++) sum += gramA[i * size + j]! * gramB[i * size + j]!;
  }
  return sum;
}

type Range = readonly [start: number, end: number];

/** The leading n × n block of a size × size matrix. */
function leadingBlock(matrix: Float64Array, size: number, n: number): Float64Array<ArrayBuffer> {
  const block = new Float64Array(n * n);
  for (let i = 0; i < n; i++) block.set(matrix.subarray(i * size, i * size + n), i * n);
  return block;
}

/** Σ_{i≤k} σ_i² of the delta that the first n of the stack make. */
function bestSquares({ gramA, gramB, size }: Grams, n: number, k: number): number {
  const { sigma } = truncateFromGrams({
    gramA: leadingBlock(gramA, size, n),
    gramB: leadingBlock(gramB, size, n),
    n,
    k,
  });
  return sigma.subarray(0, k).reduce((sum, value) => sum + value * value, 0);
}

/** The sources as parts of a stack, weights included, and where each lies in it. */
function stackOf(sources: readonly WeightedFactors[]): { parts: StackPart[]; ranges: Range[]; pool: Range } {
  let end = 0;
  const ranges = sources.map(({ a }): Range => [end, end += a.shape[0]!]);
  const parts = sources.map(({ a, b, scale, weight }) => ({ a, b, factor: scale * weight }));
  return { parts, ranges, pool: [0, end] };
}

function figuresOf(
  grams: Grams,
  sources: readonly WeightedFactors[],
  ranges: readonly Range[],
  pool: Range,
  merged: Range,
  best: number,
): DeltaFigures {
  return {
    sources: sources.map(({ adapter, weight }, index) => {
      // The weight is part of the stack, but not of the adapter's own delta.
      const factor = weight === 0 ? 0 : 1 / weight;
      const range = ranges[index]!;
      return {
        adapter,
        squares: factor * factor * inner(grams, range, range),
        inner: factor * inner(grams, merged, range),
      };
    }),
    between: sources.map((one, s) =>
      sources.map((other, t) => {
        const factor = one.weight * other.weight;
        return factor === 0 ? 0 : inner(grams, ranges[s]!, ranges[t]!) / factor;
      })
    ),
    squares: Math.max(0, inner(grams, merged, merged)),
    sumSquares: Math.max(0, inner(grams, pool, pool)),
    sumInner: inner(grams, merged, pool),
    bestSquares: best,
  };
}

/**
 * Inner products of a merged delta with its sources', from Gram matrices in f32: losses below about 1e-3 are their
 * rounding.
 */
export async function measureDeltas(
  device: Device,
  sources: readonly WeightedFactors[],
  merged: Pick<MergedFactors, "a" | "b">,
): Promise<DeltaFigures> {
  const { parts, ranges, pool } = stackOf(sources);
  const rank = merged.a.shape[0]!;
  const grams = await gramsOf(device, [...parts, { a: merged.a, b: merged.b, factor: 1 }]);
  const best = bestSquares(grams, pool[1], Math.min(rank, pool[1]));
  return figuresOf(grams, sources, ranges, pool, [pool[1], pool[1] + rank], best);
}

/** The same where the merged delta is the weighted sum itself. */
export async function measureSum(device: Device, sources: readonly WeightedFactors[]): Promise<DeltaFigures> {
  const { parts, ranges, pool } = stackOf(sources);
  const grams = await gramsOf(device, parts);
  return figuresOf(grams, sources, ranges, pool, pool, Math.max(0, inner(grams, pool, pool)));
}
