/** Tensors and linear algebra on a GPU through WebGPU, with the same operations in float64 on the CPU. */
export * from "./device.ts";
export * from "./errors.ts";
export * from "./kernel_times.ts";
export * from "./open_device.ts";
export * from "./operation.ts";
export * from "./shapes.ts";
export * from "./tensor.ts";
export * from "./cpu/cpu_device.ts";
export * from "./gpu/compile_kernels.ts";
export * from "./gpu/describe_adapters.ts";
export { findSoftwareDriver, type SoftwareDriver } from "./gpu/software_driver.ts";
export { foldGrid } from "./gpu/grid.ts";
export * from "./gpu/gpu_device.ts";
export * from "./gpu/kernel.ts";
export { forEachRowWindow, wholeMatrix, windowOf } from "./gpu/matrix_view.ts";
export type { KernelTime } from "./gpu/kernel_timer.ts";
export type { Profile, Toggles } from "./gpu/dawn.ts";
export { ERROR_FREE } from "./kernels/error_free.ts";
export * from "./ops/add.ts";
export * from "./ops/add_to_pair.ts";
export * from "./ops/blocks.ts";
export * from "./ops/cast.ts";
export {
  type CholeskyFactor,
  type CholeskyOptions,
  factorCholesky,
  startCholesky,
  type StartedFactor,
  type TriangularFactor,
} from "./ops/cholesky.ts";
export * from "./ops/cholesky_solve.ts";
export * from "./ops/compile_ahead.ts";
export * from "./ops/concat.ts";
export * from "./ops/copy.ts";
export * from "./ops/gemm.ts";
export * from "./ops/gram.ts";
export { readsHalves } from "./ops/matrix_units.ts";
export * from "./ops/multiply.ts";
export * from "./ops/norms.ts";
export * from "./ops/positive_definite_solve.ts";
export { preciseResidual, type ResidualOptions, type ShiftedMatrix } from "./ops/precise_residual.ts";
export * from "./ops/reductions.ts";
export * from "./ops/reshape.ts";
export * from "./ops/scale.ts";
export * from "./ops/slice.ts";
export * from "./ops/transpose.ts";
export * from "./ops/triangular_inverse.ts";
export * from "./linalg/mod.ts";
export {
  type ProductChoices,
  type TuningKey,
  tuningKey,
  tuningPath,
  writeTuning,
} from "./tuning/tuning_file.ts";
export * from "./tuning/tune_products.ts";
