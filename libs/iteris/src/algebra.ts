import {
  add,
  concatRows,
  copy,
  type Device,
  dot,
  gemm,
  multiply,
  scaleRows,
  sumOfSquares,
  type Tensor,
} from "@lora-loom/tensor";
import type { Delta, Deltas } from "./base_model.ts";

/** ‖x‖²_F. */
export async function squaredNorm(x: Tensor): Promise<number> {
  using squares = sumOfSquares(x);
  const [sum] = await x.device.download(squares);
  return sum!;
}

/** ‖x‖_F. */
export async function frobeniusNorm(x: Tensor): Promise<number> {
  return Math.sqrt(await squaredNorm(x));
}

/** ‖diag(rootWeights) x‖²_F, `[1]`. */
export function weightedSquares(x: Tensor, rootWeights: Tensor): Tensor {
  using weighted = scaleRows(x, rootWeights);
  return sumOfSquares(weighted);
}

/** factor · rows · Wᵀ for W = b·a, `[tokens, in] → [tokens, out]`; added to `into` where given. */
export function throughDelta(
  rows: Tensor,
  { a, b }: Delta,
  { into, factor = 1 }: { readonly into?: Tensor; readonly factor?: number } = {},
): Tensor {
  using inner = gemm(rows, a, { transposeB: true });
  return gemm(inner, b, { transposeB: true, alpha: factor, ...(into ? { into, beta: 1 } : {}) });
}

/** factor · x, a new tensor. */
export function multiple(x: Tensor, factor: number): Tensor {
  return add(x, x, { alpha: factor, beta: 0 });
}

/** x + factor · y, a new tensor. */
export function plus(x: Tensor, y: Tensor, factor = 1): Tensor {
  return add(x, y, { beta: factor });
}

/** into += factor · x. */
export function accumulate(into: Tensor, x: Tensor, factor = 1): void {
  add(into, x, { beta: factor, into });
}

/** Σ factor_i · x_i over the tensors that are there; nothing where none is. */
export function weightedSum(
  tensors: readonly (Tensor | undefined)[],
  factors: readonly number[],
): Tensor | undefined {
  const [first, second, ...rest] = tensors.flatMap((x, i) => x ? [{ x, factor: factors[i]! }] : []);
  if (!first) return undefined;
  if (!second) return multiple(first.x, first.factor);
  const sum = add(first.x, second.x, { alpha: first.factor, beta: second.factor });
  for (const { x, factor } of rest) accumulate(sum, x, factor);
  return sum;
}

/** The tensors one below the other; disposes them. */
export function stackRows(parts: readonly Tensor[]): Tensor {
  const whole = concatRows(parts);
  for (const part of parts) part.dispose();
  return whole;
}

/** ⟨x_i, y_i⟩ of each row. */
export async function rowDots(x: Tensor, y: Tensor): Promise<Float64Array<ArrayBuffer>> {
  using products = multiply(x, y);
  using ones = x.device.upload(new Float64Array(x.shape[1]!).fill(1), [x.shape[1]!, 1]);
  using sums = gemm(products, ones);
  return Float64Array.from(await x.device.download(sums));
}

/** ⟨x, y⟩ = Σ x ∘ y. */
export async function innerProduct(x: Tensor, y: Tensor): Promise<number> {
  using product = dot(x, y);
  const [sum] = await x.device.download(product);
  return sum!;
}

/** Releases the factors of all deltas. */
export function disposeDeltas(deltas: Deltas): void {
  for (const { a, b } of deltas.values()) {
    a.dispose();
    b.dispose();
  }
}

/** A copy of `tensor` on `device`; on the CPU device in float64. */
export async function copyTo(device: Device, tensor: Tensor): Promise<Tensor> {
  if (tensor.device === device) return copy(tensor);
  return device.upload(await tensor.device.download(tensor), tensor.shape);
}
