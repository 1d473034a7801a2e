import type { Device } from "./device.ts";

/** Element types a tensor can hold. Arithmetic is done in `f32` (GPU) or float64 (CPU); the 16-bit types are storage. */
export type DType = "f32" | "f16" | "bf16" | "u32";

/** Bytes per element of each {@linkcode DType}. */
export const BYTES_PER_ELEMENT: Readonly<Record<DType, number>> = { f32: 4, f16: 2, bf16: 2, u32: 4 };

/**
 * A dense, row-major array that lives on a {@linkcode Device}. Its memory is the device's: release it with
 * {@linkcode Tensor.dispose} or declare it with `using`.
 */
export interface Tensor extends Disposable {
  readonly device: Device;
  /** Sizes, slowest-varying first; `[rows, columns]` for a matrix. */
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly disposed: boolean;
  /** Returns the memory to the device. Harmless when repeated. */
  dispose(): void;
}

/** Number of elements of a shape. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}
