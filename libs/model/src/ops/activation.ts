import { type CpuTensor, defineOperation, elementCount, type Kernel, type Tensor } from "@lora-loom/tensor";
import { FOR_EACH_ELEMENT, grid, LANES } from "./grid.ts";

/** The nonlinearity of an MLP. `gelu_tanh` is GELU's approximation by tanh (arXiv 1606.08415 §2), `gelu_new` in configurations. */
export type Activation = "silu" | "gelu_tanh" | "relu";

/** A function of one number, as WGSL of `v` and in float64. */
interface Curve {
  readonly wgsl: string;
  readonly f: (v: number) => number;
}

const GELU_FACTOR = Math.sqrt(2 / Math.PI);
const GELU_CUBE = 0.044715;
const geluTanh = (v: number) => Math.tanh(GELU_FACTOR * (v + GELU_CUBE * v ** 3));

/** Each activation with its derivative. */
export const ACTIVATIONS: Readonly<
  Record<Activation, { readonly value: Curve; readonly slope: Curve }>
> = {
  silu: {
    // exp(-v) overflows below v = -88, where the quotient must be 0: the clamp keeps it finite.
    value: { wgsl: "v / (1.0 + exp(-max(v, -87.0)))", f: (v) => v / (1 + Math.exp(-v)) },
    // The clamps keep the exponentials finite.
    slope: {
      wgsl: "silu_slope(clamp(v, -87.0, 87.0))",
      f: (v) => {
        const sigmoid = 1 / (1 + Math.exp(-v));
        return sigmoid * (1 + v * (1 - sigmoid));
      },
    },
  },
  gelu_tanh: {
    // Drivers may compute tanh from exponentials that overflow; beyond ±10 it is ±1 in f32.
    value: {
      wgsl: `0.5 * v * (1.0 + tanh(clamp(${GELU_FACTOR} * (v + ${GELU_CUBE} * v * v * v), -10.0, 10.0)))`,
      f: (v) => 0.5 * v * (1 + geluTanh(v)),
    },
    // Beyond ±10 it is 0 or 1 in f32.
    slope: {
      wgsl: "gelu_slope(clamp(v, -10.0, 10.0))",
      f: (v) => {
        const bent = geluTanh(v);
        const inner = GELU_FACTOR * (1 + 3 * GELU_CUBE * v * v);
        return 0.5 * (1 + bent) + 0.5 * v * (1 - bent * bent) * inner;
      },
    },
  },
  relu: {
    value: { wgsl: "max(v, 0.0)", f: (v) => Math.max(v, 0) },
    slope: { wgsl: "select(0.0, 1.0, v > 0.0)", f: (v) => v > 0 ? 1 : 0 },
  },
};

/** WGSL that slopes call. */
export const SLOPE_FUNCTIONS = /* wgsl */ `
fn silu_slope(v: f32) -> f32 { return (1.0 + v / (1.0 + exp(v))) / (1.0 + exp(-v)); }
fn gelu_slope(v: f32) -> f32 {
  let bent = tanh(clamp(${GELU_FACTOR} * (v + ${GELU_CUBE} * v * v * v), -10.0, 10.0));
  let inner = ${GELU_FACTOR} * (1.0 + ${3 * GELU_CUBE} * v * v);
  return 0.5 * (1.0 + bent) + 0.5 * v * (1.0 - bent * bent) * inner;
}`;

function kernelOf(activation: Activation): Kernel {
  return {
    name: `activate_${activation}`,
    buffers: [{ name: "x", element: "f32", access: "read_write" }],
    params: [["count", "u32"]],
    code: /* wgsl */ `${FOR_EACH_ELEMENT}
  let v = x[i];
  x[i] = ${ACTIVATIONS[activation].value.wgsl};
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
    floats.forEach((value, i) => floats[i] = ACTIVATIONS[activation].value.f(value));
  },
});
