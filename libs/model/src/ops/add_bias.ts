import {
  type CpuTensor,
  defineOperation,
  type Kernel,
  matrixShape,
  requireShape,
  type Tensor,
} from "@lora-loom/tensor";
import { FOR_EACH_ELEMENT, grid, LANES } from "./grid.ts";

const kernel: Kernel = {
  name: "add_bias",
  buffers: [
    { name: "bias", element: "f32", access: "read" },
    { name: "into", element: "f32", access: "read_write" },
  ],
  params: [["count", "u32"], ["width", "u32"]],
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  into[i] += bias[i % params.width];
}`,
};

/** Adds a bias `[width]` to every row of `into` `[rows, width]`, in place. */
export const addBias: (bias: Tensor, into: Tensor) => void = defineOperation<[Tensor, Tensor], void>({
  name: "add_bias",
  kernels: [kernel],
  gpu(device, bias, into) {
    const [rows, width] = matrixShape(into, "add_bias");
    requireShape(bias, [width], "bias", "add_bias");
    device.dispatch(kernel, [bias, into], [rows * width, width], grid(rows * width, LANES));
  },
  cpu(_device, bias, into) {
    const [rows, width] = matrixShape(into, "add_bias");
    requireShape(bias, [width], "bias", "add_bias");
    for (let i = 0; i < rows * width; i++) {
      (into as CpuTensor).floats[i]! += (bias as CpuTensor).floats[i % width]!;
    }
  },
});
