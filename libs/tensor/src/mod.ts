export * from "./device.ts";
export * from "./errors.ts";
export * from "./operation.ts";
export * from "./tensor.ts";
export * from "./cpu/cpu_device.ts";
export * from "./gpu/gpu_device.ts";
export * from "./gpu/kernel.ts";
export * from "./ops/gemm.ts";
