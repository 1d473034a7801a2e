import type { Device } from "../device.ts";
import type { DType, Tensor } from "../tensor.ts";
import type { Kernel } from "./kernel.ts";

/** A stretch of a tensor's memory that is bound instead of the whole, for tensors larger than one binding. */
export interface TensorWindow {
  readonly tensor: Tensor;
  /** First element; its byte offset is a multiple of {@linkcode GpuLimits.windowAlignmentBytes}. */
  readonly start: number;
  /** One past the last element that is used. */
  readonly end: number;
}

/** What operations must know of an adapter to cut their work into dispatches. */
export interface GpuLimits {
  /** The most bytes one storage binding can cover. */
  readonly maxBindingBytes: number;
  /** A window starts at a multiple of this. */
  readonly windowAlignmentBytes: number;
  readonly workgroupStorageBytes: number;
  readonly invocationsPerWorkgroup: number;
  /** Invocations of every subgroup; 0 where subgroups are not offered, or are of several sizes. */
  readonly subgroupSize: number;
}

/** A device that runs kernels through WebGPU. */
export interface GpuDevice extends Device {
  readonly limits: GpuLimits;
  /** WebGPU features the device was opened with. */
  readonly features: ReadonlySet<string>;
  /** Variants of matrix products by bucket of shapes, as tuning found them; empty unless the device was opened with that. */
  readonly tuned: ReadonlyMap<string, string>;
  /** A new tensor with undefined contents, for a kernel to fill. */
  empty(shape: readonly number[], dtype?: DType): Tensor;
  /**
   * Queues one dispatch.
   *
   * @param kernel what to run
   * @param tensors one per entry of `kernel.buffers`, in that order
   * @param params one number per entry of `kernel.params`
   * @param workgroups counts per axis; each at most 65535
   * @throws {TensorError} `binding_too_large`, `kernel_unsupported`, `tensor_disposed`, `grid_too_large`
   */
  dispatch(
    kernel: Kernel,
    tensors: readonly (Tensor | TensorWindow)[],
    params: readonly number[],
    workgroups: readonly [number, number?, number?],
  ): void;
  /** Queues a copy of `count` elements between tensors of one dtype; both byte ranges must be multiples of four. */
  copyElements(from: Tensor, fromStart: number, to: Tensor, toStart: number, count: number): void;
  /** A tensor that shares the memory of `tensor`; it is freed when both are disposed. */
  share(tensor: Tensor, shape: readonly number[]): Tensor;
  /** True when the two tensors occupy the same memory. */
  sameMemory(a: Tensor, b: Tensor): boolean;
  /** Compiles kernels ahead of their first use, in parallel. */
  compile(kernels: readonly Kernel[]): Promise<void>;
}
