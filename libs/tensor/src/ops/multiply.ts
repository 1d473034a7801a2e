import { elementwiseKernels } from "../kernels/elementwise.ts";
import { defineOperation } from "../operation.ts";
import type { Tensor } from "../tensor.ts";
import {
  checkElementwise,
  computeElementwise,
  type ElementwiseCall,
  queueElementwise,
} from "./elementwise.ts";

/** Options of {@linkcode multiply}. */
export interface MultiplyOptions {
  /** Where the result goes; may be `x` or `y`. Absent: a new tensor. */
  readonly into?: Tensor;
}

const KERNELS = elementwiseKernels("multiply", "u * v");

function call(x: Tensor, y: Tensor, { into }: MultiplyOptions = {}): ElementwiseCall {
  const result = { x, y, into, alpha: 1, beta: 1 };
  checkElementwise(result, "multiply");
  return result;
}

/**
 * The product of two tensors of one shape, element by element.
 *
 * @throws {TensorError} `shape_mismatch`, `dtype_mismatch`
 */
export const multiply: (x: Tensor, y: Tensor, options?: MultiplyOptions) => Tensor = defineOperation<
  [Tensor, Tensor, MultiplyOptions?],
  Tensor
>({
  name: "multiply",
  kernels: [KERNELS.apart, KERNELS.inPlace],
  gpu: (device, x, y, options) => queueElementwise(device, KERNELS, call(x, y, options)),
  cpu: (device, x, y, options) => computeElementwise(device, call(x, y, options), (u, v) => u * v),
});
