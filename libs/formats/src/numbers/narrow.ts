import { FormatError } from "../errors.ts";
import type { StoredDType } from "../safetensors/dtypes.ts";
import { assertFinite } from "./finite.ts";

/** The precisions an adapter can be written in. */
export type OutputDType = "float32" | "float16" | "bfloat16";

/** The safetensors name of an output dtype. */
export const STORED_NAME: Readonly<Record<OutputDType, StoredDType>> = {
  float32: "F32",
  float16: "F16",
  bfloat16: "BF16",
};

const OVERFLOW_FIX: Readonly<Record<OutputDType, string>> = {
  float16: "Write bfloat16 or float32 (output.dtype), or scale the adapter's weight down.",
  bfloat16: "Scale the adapter's weight down.",
  float32: "Scale the adapter's weight down.",
};

/**
 * Values as little-endian bytes of `dtype`, rounded to nearest even in one step (from float64 too).
 *
 * @param where the file and module, for the error
 * @throws {FormatError} `not_finite` for NaN or infinity; `f16_overflow`, `bf16_overflow`, `f32_overflow` for a finite
 * value that the dtype would make infinite
 */
export function narrow(
  values: Float32Array | Float64Array,
  dtype: OutputDType,
  where: string,
): Uint8Array<ArrayBuffer> {
  assertFinite(values, where);
  const overflow = (index: number) => overflowError(values[index]!, dtype, where);
  switch (dtype) {
    case "float32":
      return narrowFloat32(values, overflow);
    case "float16":
      return narrowFloat16(values, overflow);
    case "bfloat16":
      return narrowBFloat16(values, overflow);
  }
}

type OnOverflow = (index: number) => FormatError;

function narrowFloat32(values: Float32Array | Float64Array, overflow: OnOverflow): Uint8Array<ArrayBuffer> {
  const stored = new Float32Array(values);
  refuseInfinities(stored, overflow);
  return new Uint8Array(stored.buffer);
}

function narrowFloat16(values: Float32Array | Float64Array, overflow: OnOverflow): Uint8Array<ArrayBuffer> {
  const stored = new Float16Array(values);
  refuseInfinities(stored, overflow);
  return new Uint8Array(stored.buffer);
}

function refuseInfinities(stored: Float32Array | Float16Array, overflow: OnOverflow): void {
  for (let i = 0; i < stored.length; i++) if (!Number.isFinite(stored[i]!)) throw overflow(i);
}

const INFINITY_BITS = 0x7f80;

function narrowBFloat16(values: Float32Array | Float64Array, overflow: OnOverflow): Uint8Array<ArrayBuffer> {
  const nearest = new Float32Array(1);
  const bits = new Uint32Array(nearest.buffer);
  const stored = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) {
    nearest[0] = values[i]!;
    const kept = bits[0]! >>> 16;
    stored[i] = kept + roundUp(bits[0]!, Math.abs(values[i]!) - Math.abs(nearest[0]!));
    if ((stored[i]! & INFINITY_BITS) === INFINITY_BITS) throw overflow(i);
  }
  return new Uint8Array(stored.buffer);
}

/**
 * 1 where the lower half of a float32 rounds the upper half up. `residue` is what the rounding to float32 took from the
 * magnitude: it decides what would look like a tie, so that a float64 is rounded once, not twice.
 */
function roundUp(word: number, residue: number): number {
  const lower = word & 0xffff;
  if (lower !== 0x8000) return lower > 0x8000 ? 1 : 0;
  if (residue !== 0) return residue > 0 ? 1 : 0;
  return (word >>> 16) & 1;
}

function overflowError(value: number, dtype: OutputDType, where: string): FormatError {
  const stored = STORED_NAME[dtype];
  return new FormatError(
    `${stored.toLowerCase()}_overflow`,
    `the value ${value} is beyond the range of ${stored}`,
    OVERFLOW_FIX[dtype],
    where,
  );
}
