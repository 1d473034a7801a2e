import {
  type CpuTensor,
  defineOperation,
  elementCount,
  type GpuDevice,
  type Kernel,
  type Tensor,
} from "@lora-loom/tensor";
import { FOR_EACH_ELEMENT, grid, LANES } from "./grid.ts";

const kernel: Kernel = {
  name: "count_non_finite",
  buffers: [
    // Bits, not floats: WGSL lets an implementation assume that no float is infinite or NaN.
    { name: "x", element: "u32", access: "read" },
    { name: "counts", element: "atomic<u32>", access: "read_write" },
  ],
  params: [["count", "u32"], ["slot", "u32"]],
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  if ((x[i] & 0x7f800000u) == 0x7f800000u) { atomicAdd(&counts[params.slot], 1u); }
}`,
};

/** Queues the count over a tensor of any size, binding at most so many bytes at once: a multiple of 256. */
export function dispatchCountNonFinite(
  device: GpuDevice,
  maxBindingBytes: number,
  x: Tensor,
  counts: Tensor,
  slot: number,
): void {
  const total = elementCount(x.shape);
  for (let start = 0; start < total; start += maxBindingBytes / 4) {
    const end = Math.min(total, start + maxBindingBytes / 4);
    const window = { tensor: x, start, end };
    device.dispatch(kernel, [window, counts], [end - start, slot], grid(end - start, LANES));
  }
}

/** Adds the number of NaN and infinite elements of `x` (f32, any shape) to `counts[slot]`, `counts` being u32. */
export const countNonFinite: (x: Tensor, counts: Tensor, slot: number) => void = defineOperation<
  [Tensor, Tensor, number],
  void
>({
  name: "count_non_finite",
  kernels: [kernel],
  gpu: (device, x, counts, slot) =>
    dispatchCountNonFinite(device, device.limits.maxBindingBytes, x, counts, slot),
  cpu(_device, x, counts, slot) {
    for (const value of (x as CpuTensor).floats) {
      if (!Number.isFinite(value)) (counts as CpuTensor).data[slot]!++;
    }
  },
});
