import { concatColumns, concatRows, type Device, scaleColumns, type Tensor } from "@lora-loom/tensor";

/** Factors of one delta, factor · b · a. */
export interface StackPart {
  /** `[r, in]` */
  readonly a: Tensor;
  /** `[out, r]` */
  readonly b: Tensor;
  readonly factor: number;
}

/**
 * Stacks factors: a = [a_1; a_2; …], `[N, in]`, and b = [f_1 b_1 f_2 b_2 …], `[out, N]`, so that b · a is the sum of the
 * deltas.
 */
export function stackFactors(device: Device, parts: readonly StackPart[]): { a: Tensor; b: Tensor } {
  const factors = parts.flatMap(({ a, factor }) => new Array<number>(a.shape[0]!).fill(factor));
  using columns = concatColumns(parts.map(({ b }) => b));
  using scales = device.upload(Float64Array.from(factors), [factors.length]);
  return { a: concatRows(parts.map(({ a }) => a)), b: scaleColumns(columns, scales) };
}
