import type { CpuDevice, CpuTensor } from "../cpu/cpu_device.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { foldGrid } from "../gpu/grid.ts";
import { ELEMENTWISE_WORKGROUP, type ElementwiseKernels } from "../kernels/elementwise.ts";
import { requireF32, requireShape } from "../shapes.ts";
import { elementCount, type Tensor } from "../tensor.ts";

/** Operands of a binary elementwise operation whose operands may be exchanged together with their factors. */
export interface ElementwiseCall {
  readonly x: Tensor;
  readonly y: Tensor;
  readonly into: Tensor | undefined;
  readonly alpha: number;
  readonly beta: number;
}

/** Throws unless the operands agree. */
export function checkElementwise({ x, y, into }: ElementwiseCall, where: string): void {
  requireF32([x, y, into], where);
  requireShape(y, x.shape, "y", where);
  if (into) requireShape(into, x.shape, "into", where);
}

/** Queues the operation; `into` may be one of the operands, or both. */
export function queueElementwise(
  device: GpuDevice,
  kernels: ElementwiseKernels,
  call: ElementwiseCall,
): Tensor {
  const { x, y, into, alpha, beta } = call;
  const overX = into !== undefined && device.sameMemory(into, x);
  const overY = into !== undefined && device.sameMemory(into, y);
  if (into && overX && overY) {
    const result = queueElementwise(device, kernels, { ...call, into: undefined });
    device.copyElements(result, 0, into, 0, elementCount(x.shape));
    result.dispose();
    return into;
  }
  const out = into ?? device.empty(x.shape);
  const [first, second, factors] = overY ? [y, x, [beta, alpha]] : [x, y, [alpha, beta]];
  forEachStretch(device, elementCount(x.shape), (start, end) => {
    const windows = (overX || overY ? [first, second] : [first, second, out]).map((tensor) => ({
      tensor,
      start,
      end,
    }));
    const vectors = Math.ceil((end - start) / 4);
    device.dispatch(
      overX || overY ? kernels.inPlace : kernels.apart,
      windows,
      [vectors, ...factors],
      foldGrid(Math.ceil(vectors / ELEMENTWISE_WORKGROUP)),
    );
  });
  return out;
}

/** Cuts [0, count) into stretches of 32-bit (or smaller) elements that can be bound, and calls `visit` with each. */
export function forEachStretch(
  device: GpuDevice,
  count: number,
  visit: (start: number, end: number) => void,
): void {
  // Starts at a multiple of 256 bytes also where elements take two.
  const step = Math.floor(device.limits.maxBindingBytes / 512) * 128;
  for (let start = 0; start < count; start += step) visit(start, Math.min(count, start + step));
}

/** The same in float64. */
export function computeElementwise(
  device: CpuDevice,
  { x, y, into }: ElementwiseCall,
  combine: (u: number, v: number) => number,
): Tensor {
  const out = (into ?? device.zeros(x.shape)) as CpuTensor;
  const [u, v, result] = [(x as CpuTensor).floats, (y as CpuTensor).floats, out.floats];
  for (let i = 0; i < u.length; i++) result[i] = combine(u[i]!, v[i]!);
  return out;
}
