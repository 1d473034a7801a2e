/** Dense float64 deltas written as textbook loops: the oracles of this library's tests, which share nothing with it. */
import { gaussians } from "@lora-loom/testing";

/** Factors in host memory: a is [r, in], b is [out, r]. */
export interface HostAdapter {
  readonly a: Float64Array<ArrayBuffer>;
  readonly b: Float64Array<ArrayBuffer>;
  readonly rank: number;
  readonly scale: number;
  readonly weight: number;
}

/** A random adapter whose numbers float32 represents exactly, so that every device starts from the same ones. */
export function randomAdapter(
  { inputs, outputs, rank, seed, scale = 1, weight = 1 }: {
    inputs: number;
    outputs: number;
    rank: number;
    seed: number;
    scale?: number;
    weight?: number;
  },
): HostAdapter {
  // Ranks of clearly different sizes, so that no two units tie.
  const size = (i: number) => 1 + ((i * 7) % rank) / rank;
  const a = gaussians(rank * inputs, seed).map((x, index) =>
    Math.fround(x * size(Math.floor(index / inputs)))
  );
  const b = gaussians(outputs * rank, seed + 1000).map((x, index) => Math.fround(x * size(index % rank)));
  return { a, b, rank, scale, weight };
}

/** scale · weight · B A, [out, in]. */
export function denseDelta({ a, b, rank, scale, weight }: HostAdapter): Float64Array<ArrayBuffer> {
  const inputs = a.length / rank, outputs = b.length / rank;
  const delta = new Float64Array(outputs * inputs);
  for (let o = 0; o < outputs; o++) {
    for (let i = 0; i < inputs; i++) {
      let total = 0;
      for (let r = 0; r < rank; r++) total += b[o * rank + r]! * a[r * inputs + i]!;
      delta[o * inputs + i] = scale * weight * total;
    }
  }
  return delta;
}

/** Σ of the dense deltas. */
export function denseSum(adapters: readonly HostAdapter[]): Float64Array<ArrayBuffer> {
  return adapters.map(denseDelta).reduce((total, delta) => total.map((x, i) => x + delta[i]!));
}

/** The adapter with its ranks in another order: rank i of the result is rank `order[i]` of the argument. */
export function permutedRanks(adapter: HostAdapter, order: readonly number[]): HostAdapter {
  const { rank } = adapter;
  const inputs = adapter.a.length / rank;
  return {
    ...adapter,
    a: adapter.a.map((_, index) =>
      adapter.a[order[Math.floor(index / inputs)]! * inputs + (index % inputs)]!
    ),
    b: adapter.b.map((_, index) => adapter.b[Math.floor(index / rank) * rank + order[index % rank]!]!),
  };
}

/** The same delta with a_i multiplied and b_i divided by `gauge[i]`. */
export function regaugedAdapter(adapter: HostAdapter, gauge: readonly number[]): HostAdapter {
  const inputs = adapter.a.length / adapter.rank;
  return {
    ...adapter,
    a: adapter.a.map((x, index) => x * gauge[Math.floor(index / inputs)]!),
    b: adapter.b.map((x, index) => x / gauge[index % adapter.rank]!),
  };
}

/** ⟨x, y⟩ of two equally long arrays. */
export function inner(x: Float64Array, y: Float64Array): number {
  return x.reduce((total, value, i) => total + value * y[i]!, 0);
}
