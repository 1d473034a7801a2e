import type { Kernel } from "@lora-loom/tensor";
import type { Grain } from "./grid.ts";
import { rowKernels, type RowWork } from "./row_kernels.ts";

/** Kernels for the gradient at a norm's input, which they add to `into`: what all of them bind and take. */
export function normGradientKernels(
  work: Omit<RowWork, "buffers" | "params">,
): Readonly<Record<Grain, Kernel>> {
  return rowKernels({
    buffers: [
      { name: "x", element: "f32", access: "read" },
      { name: "gain", element: "f32", access: "read" },
      { name: "gradient", element: "f32", access: "read" },
      { name: "into", element: "f32", access: "read_write" },
    ],
    params: [["epsilon", "f32"]],
    ...work,
  });
}
