import type { CpuTensor } from "../cpu/cpu_device.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import type { Kernel } from "../gpu/kernel.ts";
import { flatReduceKernel, SUM_OF_PARTIALS } from "../kernels/flat_reduce.ts";
import { defineOperation } from "../operation.ts";
import { requireF32, requireShape } from "../shapes.ts";
import { elementCount, type Tensor } from "../tensor.ts";
import { forEachStretch } from "./elementwise.ts";

const LARGEST = flatReduceKernel("largest");
const SQUARES = flatReduceKernel("squares");
const PRODUCTS = flatReduceKernel("products");

/** Elements that a workgroup takes at least, and workgroups at most: enough of them to use all of a GPU's bandwidth. */
const PER_WORKGROUP = 4096;
const MOST_WORKGROUPS = { software: 256, cpu: 1, gpu: 2048, tensor: 2048 };

/** Reduces all elements of tensors of one shape to one partial result per workgroup. */
function queuePartials(
  device: GpuDevice,
  kernel: Kernel,
  tensors: readonly [Tensor, ...Tensor[]],
): { partial: Tensor; count: number } {
  const stretches: { start: number; end: number; workgroups: number; first: number }[] = [];
  let total = 0;
  forEachStretch(device, elementCount(tensors[0].shape), (start, end) => {
    const workgroups = Math.min(MOST_WORKGROUPS[device.info.class], Math.ceil((end - start) / PER_WORKGROUP));
    stretches.push({ start, end, workgroups, first: total });
    total += workgroups;
  });
  const partial = device.empty([total]);
  for (const { start, end, workgroups, first } of stretches) {
    const windows = tensors.map((tensor) => ({ tensor, start, end }));
    device.dispatch(kernel, [...windows, partial], [end - start, first], [workgroups]);
  }
  return { partial, count: total };
}

/** Adds up partial results, and disposes them. */
function sumOf(device: GpuDevice, partial: Tensor, count: number): Tensor {
  const out = device.empty([1]);
  device.dispatch(SUM_OF_PARTIALS, [partial, out], [count], [1]);
  partial.dispose();
  return out;
}

/**
 * The largest magnitude of all elements, `→ [1]`; 0 for an empty tensor, NaN where there is one.
 *
 * @throws {TensorError} `dtype_mismatch`
 */
export const maxAbs: (x: Tensor) => Tensor = defineOperation<[Tensor], Tensor>({
  name: "maxAbs",
  kernels: [LARGEST],
  gpu(device, x) {
    requireF32([x], "maxAbs");
    if (elementCount(x.shape) === 0) return device.zeros([1]);
    const { partial, count } = queuePartials(device, LARGEST, [x]);
    const out = device.empty([1]);
    device.dispatch(LARGEST, [partial, out], [count, 0], [1]);
    partial.dispose();
    return out;
  },
  cpu(device, x) {
    requireF32([x], "maxAbs");
    return device.wrap(
      Float64Array.of((x as CpuTensor).floats.reduce((most, v) => Math.max(most, Math.abs(v)), 0)),
      [1],
    );
  },
});

/**
 * The sum of the squares of all elements, `→ [1]`.
 *
 * @throws {TensorError} `dtype_mismatch`
 */
export const sumOfSquares: (x: Tensor) => Tensor = defineOperation<[Tensor], Tensor>({
  name: "sumOfSquares",
  kernels: [SQUARES, SUM_OF_PARTIALS],
  gpu(device, x) {
    requireF32([x], "sumOfSquares");
    if (elementCount(x.shape) === 0) return device.zeros([1]);
    const { partial, count } = queuePartials(device, SQUARES, [x]);
    return sumOf(device, partial, count);
  },
  cpu(device, x) {
    requireF32([x], "sumOfSquares");
    return device.wrap(Float64Array.of((x as CpuTensor).floats.reduce((sum, v) => sum + v * v, 0)), [1]);
  },
});

/**
 * The inner product of two tensors of one shape, Σ x ∘ y, `→ [1]`.
 *
 * @throws {TensorError} `shape_mismatch`, `dtype_mismatch`
 */
export const dot: (x: Tensor, y: Tensor) => Tensor = defineOperation<[Tensor, Tensor], Tensor>({
  name: "dot",
  kernels: [PRODUCTS, SUM_OF_PARTIALS],
  gpu(device, x, y) {
    checkDot(x, y);
    if (elementCount(x.shape) === 0) return device.zeros([1]);
    const { partial, count } = queuePartials(device, PRODUCTS, [x, y]);
    return sumOf(device, partial, count);
  },
  cpu(device, x, y) {
    checkDot(x, y);
    const values = (y as CpuTensor).floats;
    return device.wrap(
      Float64Array.of((x as CpuTensor).floats.reduce((sum, v, i) => sum + v * values[i]!, 0)),
      [1],
    );
  },
});

function checkDot(x: Tensor, y: Tensor): void {
  requireF32([x, y], "dot");
  requireShape(y, x.shape, "y", "dot");
}
