/**
 * Dense float64 linear algebra on plain row-major arrays: pure functions for the decisions that are taken on the CPU
 * (WGSL has no float64) and for solvers where there is no GPU.
 */
export * from "./cholesky.ts";
export * from "./qr.ts";
export * from "./svd.ts";
export * from "./symmetric_eigen.ts";
export * from "./triangular_solve.ts";
export * from "./truncate_from_grams.ts";
