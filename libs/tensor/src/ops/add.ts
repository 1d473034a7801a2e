import { elementwiseKernels } from "../kernels/elementwise.ts";
import { defineOperation } from "../operation.ts";
import type { Tensor } from "../tensor.ts";
import {
  checkElementwise,
  computeElementwise,
  type ElementwiseCall,
  queueElementwise,
} from "./elementwise.ts";

/** Options of {@linkcode add}. */
export interface AddOptions {
  /** Factor of `x`. Default 1. */
  readonly alpha?: number;
  /** Factor of `y`. Default 1. */
  readonly beta?: number;
  /** Where the result goes; may be `x` or `y`. Absent: a new tensor. */
  readonly into?: Tensor;
}

const KERNELS = elementwiseKernels("add", "params.alpha * u + params.beta * v");

function call(x: Tensor, y: Tensor, { alpha = 1, beta = 1, into }: AddOptions = {}): ElementwiseCall {
  const result = { x, y, into, alpha, beta };
  checkElementwise(result, "add");
  return result;
}

/**
 * `alpha · x + beta · y`, element by element, for tensors of one shape.
 *
 * @throws {TensorError} `shape_mismatch`, `dtype_mismatch`
 */
export const add: (x: Tensor, y: Tensor, options?: AddOptions) => Tensor = defineOperation<
  [Tensor, Tensor, AddOptions?],
  Tensor
>({
  name: "add",
  kernels: [KERNELS.apart, KERNELS.inPlace],
  gpu: (device, x, y, options) => queueElementwise(device, KERNELS, call(x, y, options)),
  cpu(device, x, y, options) {
    const { alpha = 1, beta = 1 } = options ?? {};
    return computeElementwise(device, call(x, y, options), (u, v) => alpha * u + beta * v);
  },
});
