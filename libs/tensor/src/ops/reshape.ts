import type { CpuTensor } from "../cpu/cpu_device.ts";
import { TensorError } from "../errors.ts";
import { defineOperation } from "../operation.ts";
import { elementCount, type Tensor } from "../tensor.ts";

function check(x: Tensor, shape: readonly number[]): void {
  if (elementCount(shape) === elementCount(x.shape)) return;
  throw new TensorError(
    "shape_mismatch",
    `reshape got shape [${x.shape}] and [${shape}], which have different numbers of elements`,
    "pass a shape with as many elements",
    "reshape",
  );
}

/**
 * The same elements under another shape. The result shares the memory of `x`: what is written to one is seen in the other,
 * and the memory is freed when both are disposed.
 *
 * @throws {TensorError} `shape_mismatch` when the numbers of elements differ
 */
export const reshape: (x: Tensor, shape: readonly number[]) => Tensor = defineOperation<
  [Tensor, readonly number[]],
  Tensor
>({
  name: "reshape",
  kernels: [],
  gpu(device, x, shape) {
    check(x, shape);
    return device.share(x, shape);
  },
  cpu(_, x, shape) {
    check(x, shape);
    return (x as CpuTensor).share(shape);
  },
});
