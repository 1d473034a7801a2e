import { add, gemm, sliceRows, type Tensor } from "@lora-loom/tensor";
import type { Delta } from "./base_model.ts";
import { addBias } from "./ops/add_bias.ts";
import type { Linear } from "./weights.ts";
import { withWidened } from "./widened.ts";

/** x Wᵀ + bias + x (B·A)ᵀ, `[rows, in] → [rows, out]`; added to `into` if that is given. */
export function applyLinear(
  x: Tensor,
  { weight, bias }: Linear,
  delta: Delta | undefined,
  into?: Tensor,
): Tensor {
  const y = gemm(x, weight, { transposeB: true, ...(into && { into, beta: 1 }) });
  if (bias) addBias(bias, y);
  if (delta) {
    using inner = gemm(x, delta.a, { transposeB: true });
    gemm(inner, delta.b, { transposeB: true, into: y, beta: 1 });
  }
  return y;
}

/**
 * A new weight W0 + B·A.
 *
 * @param outputs which of the delta's outputs are meant, first and one past the last; nothing where they all are
 */
export function foldDelta(
  { weight }: Linear,
  delta: Delta,
  outputs?: readonly [start: number, end: number],
): Tensor {
  using b = outputs && sliceRows(delta.b, ...outputs);
  const change = gemm(b ?? delta.b, delta.a);
  return withWidened(weight, (w) => add(w, change, { into: change }));
}
