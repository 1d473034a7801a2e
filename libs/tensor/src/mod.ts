/** Tensors and linear algebra on a GPU through WebGPU, with the same operations in float64 on the CPU. */
export * from "./device.ts";
export * from "./errors.ts";
export * from "./open_device.ts";
export * from "./operation.ts";
export * from "./shapes.ts";
export * from "./tensor.ts";
export * from "./cpu/cpu_device.ts";
export { foldGrid } from "./gpu/grid.ts";
export * from "./gpu/gpu_device.ts";
export * from "./gpu/kernel.ts";
export type { Profile } from "./gpu/dawn.ts";
export * from "./ops/gemm.ts";
export * from "./linalg/mod.ts";
