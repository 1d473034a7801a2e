import { type CpuTensor, defineOperation, elementCount, type Kernel, type Tensor } from "@lora-loom/tensor";
import { FOR_EACH_ELEMENT, grid, LANES } from "./grid.ts";

/** The nonlinearity of an MLP. `gelu_tanh` is GELU's approximation by tanh (arXiv 1606.08415 §2), `gelu_new` in configurations. */
export type Activation = "silu" | "gelu_tanh" | "relu";

const GELU_FACTOR = Math.sqrt(2 / Math.PI);

/** WGSL of f(v), and the same in float64. */
const FUNCTIONS: Readonly<Record<Activation, { readonly wgsl: string; readonly f: (v: number) => number }>> =
  {
    // exp(-v) overflows below v = -88, where the quotient must be 0: the clamp keeps it finite.
    silu: { wgsl: "v / (1.0 + exp(-max(v, -87.0)))", f: (v) => v / (1 + Math.exp(-v)) },
    // Drivers may compute tanh from exponentials that overflow; beyond ±10 it is ±1 in f32.
    gelu_tanh: {
      wgsl: `0.5 * v * (1.0 + tanh(clamp(${GELU_FACTOR} * (v + 0.044715 * v * v * v), -10.0, 10.0)))`,
      f: (v) => 0.5 * v * (1 + Math.tanh(GELU_FACTOR * (v + 0.044715 * v ** 3))),
    },
    relu: { wgsl: "max(v, 0.0)", f: (v) => Math.max(v, 0) },
  };

function kernelOf(activation: Activation): Kernel {
  return {
    name: `activate_${activation}`,
    buffers: [{ name: "x", element: "f32", access: "read_write" }],
    params: [["count", "u32"]],
    code: /* wgsl */ `${FOR_EACH_ELEMENT}
  let v = x[i];
  x[i] = ${FUNCTIONS[activation].wgsl};
}`,
  };
}

const KERNELS: Readonly<Record<Activation, Kernel>> = {
  silu: kernelOf("silu"),
  gelu_tanh: kernelOf("gelu_tanh"),
  relu: kernelOf("relu"),
};

/** Applies an activation to every element, in place. */
export const activate: (activation: Activation, x: Tensor) => void = defineOperation<
  [Activation, Tensor],
  void
>({
  name: "activate",
  kernels: Object.values(KERNELS),
  gpu(device, activation, x) {
    const count = elementCount(x.shape);
    device.dispatch(KERNELS[activation], [x], [count], grid(count, LANES));
  },
  cpu(_device, activation, x) {
    const { floats } = x as CpuTensor;
    floats.forEach((value, i) => floats[i] = FUNCTIONS[activation].f(value));
  },
});
