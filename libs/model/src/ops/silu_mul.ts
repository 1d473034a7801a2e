import {
  type CpuTensor,
  defineOperation,
  elementCount,
  type Kernel,
  requireShape,
  type Tensor,
} from "@lora-loom/tensor";
import { FOR_EACH_ELEMENT, grid, LANES } from "./grid.ts";

const kernel: Kernel = {
  name: "silu_mul",
  buffers: [
    { name: "gate", element: "f32", access: "read" },
    { name: "up", element: "f32", access: "read" },
    { name: "result", element: "f32", access: "read_write" },
  ],
  params: [["count", "u32"]],
  // exp(-g) overflows below g = -88, where the quotient must be 0: the clamp keeps it finite.
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  let g = gate[i];
  result[i] = g / (1.0 + exp(-max(g, -87.0))) * up[i];
}`,
};

/** SiLU(gate) · up, elementwise, with SiLU(g) = g / (1 + e^−g): the gated MLP's activation (arXiv 2002.05202). */
export const siluMul: (gate: Tensor, up: Tensor) => Tensor = defineOperation<[Tensor, Tensor], Tensor>({
  name: "silu_mul",
  kernels: [kernel],
  gpu(device, gate, up) {
    requireShape(up, gate.shape, "up", "silu_mul");
    const count = elementCount(gate.shape);
    const result = device.empty(gate.shape);
    device.dispatch(kernel, [gate, up, result], [count], grid(count, LANES));
    return result;
  },
  cpu(device, gate, up) {
    requireShape(up, gate.shape, "up", "silu_mul");
    const factors = (up as CpuTensor).floats;
    return device.wrap(
      (gate as CpuTensor).floats.map((g, i) => g / (1 + Math.exp(-g)) * factors[i]!),
      gate.shape,
    );
  },
});
