import type { Device } from "../device.ts";
import type { DType, Tensor } from "../tensor.ts";
import type { Kernel } from "./kernel.ts";

/** A device that runs kernels through WebGPU. */
export interface GpuDevice extends Device {
  /** A new tensor with undefined contents, for a kernel to fill. */
  empty(shape: readonly number[], dtype?: DType): Tensor;
  /**
   * Queues one dispatch.
   *
   * @param kernel what to run
   * @param tensors one per entry of `kernel.buffers`, in that order
   * @param params one number per entry of `kernel.params`
   * @param workgroups counts per axis; each at most 65535
   */
  dispatch(
    kernel: Kernel,
    tensors: readonly Tensor[],
    params: readonly number[],
    workgroups: readonly [number, number?, number?],
  ): void;
}
