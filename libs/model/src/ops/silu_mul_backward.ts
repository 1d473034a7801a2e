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
  name: "silu_mul_backward",
  buffers: [
    { name: "gate", element: "f32", access: "read" },
    { name: "up", element: "f32", access: "read" },
    { name: "gradient", element: "f32", access: "read" },
    { name: "at_gate", element: "f32", access: "read_write" },
    { name: "at_up", element: "f32", access: "read_write" },
  ],
  params: [["count", "u32"]],
  // The clamps keep e^−g finite, and (1 − σ(g))·g from being 0 · ∞.
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  let g = clamp(gate[i], -87.0, 87.0);
  let sigmoid = 1.0 / (1.0 + exp(-g));
  at_gate[i] = gradient[i] * up[i] * sigmoid * (1.0 + g * (1.0 - sigmoid));
  at_up[i] = gradient[i] * gate[i] * sigmoid;
}`,
};

/** Gradients at the two inputs of `siluMul`. */
export interface SiluMulGradients {
  readonly gate: Tensor;
  readonly up: Tensor;
}

/** Gradients of SiLU(gate) · up at both inputs, from the one at its output; all of one shape. */
export const siluMulBackward: (gate: Tensor, up: Tensor, gradient: Tensor) => SiluMulGradients =
  defineOperation<[Tensor, Tensor, Tensor], SiluMulGradients>({
    name: "silu_mul_backward",
    kernels: [kernel],
    gpu(device, gate, up, gradient) {
      check(gate, up, gradient);
      const count = elementCount(gate.shape);
      const result = { gate: device.empty(gate.shape), up: device.empty(gate.shape) };
      device.dispatch(
        kernel,
        [gate, up, gradient, result.gate, result.up],
        [count],
        grid(count, LANES),
      );
      return result;
    },
    cpu(device, gate, up, gradient) {
      check(gate, up, gradient);
      const [gates, ups, at] = [gate, up, gradient].map((tensor) => (tensor as CpuTensor).floats) as [
        Float64Array,
        Float64Array,
        Float64Array,
      ];
      const result = { gate: device.zeros(gate.shape), up: device.zeros(gate.shape) };
      for (let i = 0; i < gates.length; i++) {
        const sigmoid = 1 / (1 + Math.exp(-gates[i]!));
        result.gate.floats[i] = at[i]! * ups[i]! * sigmoid * (1 + gates[i]! * (1 - sigmoid));
        result.up.floats[i] = at[i]! * gates[i]! * sigmoid;
      }
      return result;
    },
  });

function check(gate: Tensor, up: Tensor, gradient: Tensor): void {
  requireShape(up, gate.shape, "up", "silu_mul_backward");
  requireShape(gradient, gate.shape, "gradient", "silu_mul_backward");
}
