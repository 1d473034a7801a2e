import type { CpuTensor } from "../cpu/cpu_device.ts";
import type { Kernel } from "../gpu/kernel.ts";
import { ERROR_FREE } from "../kernels/error_free.ts";
import { defineOperation } from "../operation.ts";
import { elementCount, type Tensor } from "../tensor.ts";

const WORKGROUP = 64;
const WIDEST_ROW = 65535 * WORKGROUP;

const ADD_TO_PAIR: Kernel = {
  name: "add_to_pair",
  buffers: [
    { name: "high", element: "f32", access: "read_write" },
    { name: "low", element: "f32", access: "read_write" },
    { name: "change", element: "f32", access: "read" },
  ],
  params: [["count", "u32"], ["width", "u32"], ["zero", "u32"]],
  code: /* wgsl */ `
${ERROR_FREE}
@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.y * params.width + id.x;
  if (id.x >= params.width || i >= params.count) { return; }
  let sum = two_sum(high[i], change[i]);
  let both = two_sum(sum.high, guarded(sum.low + low[i]));
  high[i] = both.high;
  low[i] = both.low;
}`,
};

/** (high, low) += change in place, in twice the usual precision. All three have one shape. */
export const addToPair: (high: Tensor, low: Tensor, change: Tensor) => void = defineOperation<
  [Tensor, Tensor, Tensor],
  void
>({
  name: "add_to_pair",
  kernels: [ADD_TO_PAIR],
  gpu(device, high, low, change) {
    const count = elementCount(high.shape);
    const width = Math.min(count, WIDEST_ROW);
    const workgroups = [Math.ceil(width / WORKGROUP), Math.ceil(count / width)] as const;
    device.dispatch(ADD_TO_PAIR, [high, low, change], [count, width, 0], workgroups);
  },
  cpu(_device, high, _low, change) {
    // float64 holds the sum as it is.
    const sums = (high as CpuTensor).floats;
    (change as CpuTensor).floats.forEach((value, i) => sums[i]! += value);
  },
});
