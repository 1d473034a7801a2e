import type { GpuDevice, Kernel, Tensor } from "@lora-loom/tensor";
import { FOR_EACH_ELEMENT, forEachGroup, type Grain, grid, LANES } from "./grid.ts";

/** An operation on rows of `params.width` elements in WGSL, for both grains. */
export interface RowWork {
  /** Of the operation. */
  readonly name: string;
  readonly buffers: Kernel["buffers"];
  /** Parameters after `count`, the number of rows, and `width`. */
  readonly params?: Kernel["params"];
  /** What one invocation does with row `i`. */
  readonly invocation: string;
  readonly workgroup: {
    /** Invocations that work on a row together. */
    readonly lanes: number;
    /** Variables that they share, and what these take for each lane and altogether beside that. */
    readonly shared: string;
    readonly bytesPerLane: number;
    readonly bytesBeside?: number;
    /** What invocation `lane` of them does with row `i`. */
    readonly code: string;
  };
}

/** The kernels of an operation on rows. */
export function rowKernels(work: RowWork): Readonly<Record<Grain, Kernel>> {
  const { name, buffers, params = [], invocation, workgroup } = work;
  const { lanes, shared, bytesPerLane, bytesBeside = 0, code } = workgroup;
  const bound = { buffers, params: [["count", "u32"], ["width", "u32"], ...params] } as const;
  return {
    invocation: {
      ...bound,
      name: `${name}_invocation_per_row`,
      code: `${FOR_EACH_ELEMENT}${invocation}\n}`,
    },
    workgroup: {
      ...bound,
      name: `${name}_workgroup_per_row`,
      code: `${shared}\n${forEachGroup(lanes)}${code}\n}`,
      requires: { invocationsPerWorkgroup: lanes, workgroupStorageBytes: lanes * bytesPerLane + bytesBeside },
    },
  };
}

/** Queues the kernel of a grain for `params[0]` rows. */
export function dispatchRows(
  device: GpuDevice,
  kernels: Readonly<Record<Grain, Kernel>>,
  grain: Grain,
  tensors: readonly Tensor[],
  params: readonly [rows: number, ...others: number[]],
): void {
  device.dispatch(kernels[grain], tensors, params, grid(params[0], grain === "invocation" ? LANES : 1));
}
