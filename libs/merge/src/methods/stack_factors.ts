import { type Device, gemm, type Tensor } from "@lora-loom/tensor";

/** Factors of one delta, factor · b · a. */
export interface StackPart {
  /** `[r, in]` */
  readonly a: Tensor;
  /** `[out, r]` */
  readonly b: Tensor;
  readonly factor: number;
}

/** An r × N matrix that moves index i to `start` + i and multiplies by `factor`. */
function selector(device: Device, rank: number, total: number, start: number, factor: number): Tensor {
  const entries = new Float32Array(rank * total);
  for (let i = 0; i < rank; i++) entries[i * total + start + i] = factor;
  return device.upload(entries, [rank, total]);
}

/**
 * Stacks factors: a = [a_1; a_2; …], `[N, in]`, and b = [f_1 b_1 f_2 b_2 …], `[out, N]`, so that b · a is the sum of the
 * deltas. Products with zeros and ones, so every element is exact but for its factor.
 */
export function stackFactors(device: Device, parts: readonly StackPart[]): { a: Tensor; b: Tensor } {
  const ranks = parts.map(({ a }) => a.shape[0]!);
  const total = ranks.reduce((sum, rank) => sum + rank, 0);
  const a = device.zeros([total, parts[0]!.a.shape[1]!]);
  const b = device.zeros([parts[0]!.b.shape[0]!, total]);
  let start = 0;
  parts.forEach((part, index) => {
    using move = selector(device, ranks[index]!, total, start, 1);
    using moveAndScale = selector(device, ranks[index]!, total, start, part.factor);
    gemm(move, part.a, { transposeA: true, into: a, beta: 1 });
    gemm(part.b, moveAndScale, { into: b, beta: 1 });
    start += ranks[index]!;
  });
  return { a, b };
}
