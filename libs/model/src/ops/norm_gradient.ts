import type { Kernel } from "@lora-loom/tensor";

/** A kernel for the gradient at a norm's input, which it adds to `into`: what all of them bind and take. */
export function normGradientKernel(kernel: Pick<Kernel, "name" | "code" | "requires">): Kernel {
  return {
    buffers: [
      { name: "x", element: "f32", access: "read" },
      { name: "gain", element: "f32", access: "read" },
      { name: "gradient", element: "f32", access: "read" },
      { name: "into", element: "f32", access: "read_write" },
    ],
    params: [["count", "u32"], ["width", "u32"], ["epsilon", "f32"]],
    ...kernel,
  };
}
