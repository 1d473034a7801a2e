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
  name: "soft_cap",
  buffers: [{ name: "x", element: "f32", access: "read_write" }],
  params: [["count", "u32"], ["cap", "f32"]],
  // Drivers may compute tanh from exponentials that overflow; beyond ±20 it is ±1 in f32.
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  x[i] = params.cap * tanh(clamp(x[i] / params.cap, -20.0, 20.0));
}`,
};

/** Bounds every element smoothly, in place: x becomes c·tanh(x / c). Gemma 2, arXiv 2408.00118 §2. */
export const softCap: (x: Tensor, cap: number) => void = defineOperation<[Tensor, number], void>({
  name: "soft_cap",
  kernels: [kernel],
  gpu(device, x, cap) {
    const count = elementCount(x.shape);
    device.dispatch(kernel, [x], [count, cap], grid(count, LANES));
  },
  cpu(_device, x, cap) {
    const { floats } = x as CpuTensor;
    floats.forEach((value, i) => floats[i] = cap * Math.tanh(value / cap));
  },
});

const backwardKernel: Kernel = {
  name: "soft_cap_backward",
  buffers: [
    { name: "gradient", element: "f32", access: "read" },
    { name: "capped", element: "f32", access: "read" },
    { name: "result", element: "f32", access: "read_write" },
  ],
  params: [["count", "u32"], ["cap", "f32"]],
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  let bent = capped[i] / params.cap;
  result[i] = gradient[i] * (1.0 - bent * bent);
}`,
};

/** The gradient at what `softCap` took, from the one at what it gave, `capped`; all of one shape. */
export const softCapBackward: (gradient: Tensor, capped: Tensor, cap: number) => Tensor = defineOperation<
  [Tensor, Tensor, number],
  Tensor
>({
  name: "soft_cap_backward",
  kernels: [backwardKernel],
  gpu(device, gradient, capped, cap) {
    requireShape(capped, gradient.shape, "capped", "soft_cap_backward");
    const count = elementCount(gradient.shape);
    const result = device.empty(gradient.shape);
    device.dispatch(backwardKernel, [gradient, capped, result], [count, cap], grid(count, LANES));
    return result;
  },
  cpu(device, gradient, capped, cap) {
    requireShape(capped, gradient.shape, "capped", "soft_cap_backward");
    const values = (capped as CpuTensor).floats;
    return device.wrap(
      (gradient as CpuTensor).floats.map((at, i) => at * (1 - (values[i]! / cap) ** 2)),
      gradient.shape,
    );
  },
});
