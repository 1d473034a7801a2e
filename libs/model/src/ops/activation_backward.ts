import {
  type CpuTensor,
  defineOperation,
  elementCount,
  type Kernel,
  requireShape,
  type Tensor,
} from "@lora-loom/tensor";
import { type Activation, ACTIVATIONS, SLOPE_FUNCTIONS } from "./activation.ts";
import { FOR_EACH_ELEMENT, grid, LANES } from "./grid.ts";

const plainKernel = (activation: Activation): Kernel => ({
  name: `activation_backward_${activation}`,
  buffers: [
    { name: "x", element: "f32", access: "read" },
    { name: "gradient", element: "f32", access: "read_write" },
  ],
  params: [["count", "u32"]],
  code: /* wgsl */ `${SLOPE_FUNCTIONS}
${FOR_EACH_ELEMENT}
  let v = x[i];
  gradient[i] *= ${ACTIVATIONS[activation].slope.wgsl};
}`,
});

const gatedKernel = (activation: Activation): Kernel => ({
  name: `gated_backward_${activation}`,
  buffers: [
    { name: "gate", element: "f32", access: "read" },
    { name: "up", element: "f32", access: "read" },
    { name: "gradient", element: "f32", access: "read" },
    { name: "at_gate", element: "f32", access: "read_write" },
    { name: "at_up", element: "f32", access: "read_write" },
  ],
  params: [["count", "u32"]],
  code: /* wgsl */ `${SLOPE_FUNCTIONS}
${FOR_EACH_ELEMENT}
  let v = gate[i];
  at_gate[i] = gradient[i] * up[i] * ${ACTIVATIONS[activation].slope.wgsl};
  at_up[i] = gradient[i] * ${ACTIVATIONS[activation].value.wgsl};
}`,
});

const forEach = (kernel: (activation: Activation) => Kernel): Readonly<Record<Activation, Kernel>> => ({
  silu: kernel("silu"),
  gelu_tanh: kernel("gelu_tanh"),
  relu: kernel("relu"),
});
const plainKernels = forEach(plainKernel), gatedKernels = forEach(gatedKernel);

/** From the gradient at σ(x) to the one at x, in place: `gradient` ∘ σ'(x). */
export const activationBackward: (activation: Activation, x: Tensor, gradient: Tensor) => void =
  defineOperation<[Activation, Tensor, Tensor], void>({
    name: "activation_backward",
    kernels: Object.values(plainKernels),
    gpu(device, activation, x, gradient) {
      requireShape(gradient, x.shape, "gradient", "activation_backward");
      const count = elementCount(x.shape);
      device.dispatch(plainKernels[activation], [x, gradient], [count], grid(count, LANES));
    },
    cpu(_device, activation, x, gradient) {
      requireShape(gradient, x.shape, "gradient", "activation_backward");
      const at = (gradient as CpuTensor).floats;
      (x as CpuTensor).floats.forEach((value, i) => at[i]! *= ACTIVATIONS[activation].slope.f(value));
    },
  });

/** Gradients at the two inputs of a gated activation. */
export interface GatedGradients {
  readonly gate: Tensor;
  readonly up: Tensor;
}

/** Gradients of σ(gate) · up at both inputs, from the one at its output; all of one shape. */
export const gatedBackward: (
  activation: Activation,
  gate: Tensor,
  up: Tensor,
  gradient: Tensor,
) => GatedGradients = defineOperation<[Activation, Tensor, Tensor, Tensor], GatedGradients>({
  name: "gated_backward",
  kernels: Object.values(gatedKernels),
  gpu(device, activation, gate, up, gradient) {
    check(gate, up, gradient);
    const count = elementCount(gate.shape);
    const result = { gate: device.empty(gate.shape), up: device.empty(gate.shape) };
    device.dispatch(
      gatedKernels[activation],
      [gate, up, gradient, result.gate, result.up],
      [count],
      grid(count, LANES),
    );
    return result;
  },
  cpu(device, activation, gate, up, gradient) {
    check(gate, up, gradient);
    const { value, slope } = ACTIVATIONS[activation];
    const floats = (tensor: Tensor) => (tensor as CpuTensor).floats;
    const gates = floats(gate), ups = floats(up), at = floats(gradient);
    const result = { gate: device.zeros(gate.shape), up: device.zeros(gate.shape) };
    for (let i = 0; i < gates.length; i++) {
      result.gate.floats[i] = at[i]! * ups[i]! * slope.f(gates[i]!);
      result.up.floats[i] = at[i]! * value.f(gates[i]!);
    }
    return result;
  },
});

function check(gate: Tensor, up: Tensor, gradient: Tensor): void {
  requireShape(up, gate.shape, "up", "gated_backward");
  requireShape(gradient, gate.shape, "gradient", "gated_backward");
}
