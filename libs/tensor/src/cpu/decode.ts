import type { DType } from "../tensor.ts";

const word = new Uint32Array(1);
const single = new Float32Array(word.buffer);

/** The value of a bfloat16 bit pattern: the upper half of a float32. */
function bf16ToNumber(bits: number): number {
  word[0] = bits << 16;
  return single[0]!;
}

/** Copies the bytes under any view (also of shared memory) into an aligned, private buffer. */
function privateBytes(view: ArrayBufferView): ArrayBuffer {
  const copy = new Uint8Array(view.byteLength);
  copy.set(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
  return copy.buffer;
}

/** Decodes the elements of `dtype` under `view` to float64, exactly; `u32` stays `u32`. A `Float64Array` is copied. */
export function decodeToFloat64(
  view: ArrayBufferView,
  dtype: DType,
): Float64Array<ArrayBuffer> | Uint32Array<ArrayBuffer> {
  const bytes = privateBytes(view);
  if (dtype === "u32") return new Uint32Array(bytes);
  if (view instanceof Float64Array) return new Float64Array(bytes);
  if (dtype === "f32") return new Float64Array(new Float32Array(bytes));
  if (dtype === "f16") return new Float64Array(new Float16Array(bytes));
  // Not by `from` and a function, which first makes a list of all values.
  const stored = new Uint16Array(bytes);
  const values = new Float64Array(stored.length);
  for (let i = 0; i < values.length; i++) values[i] = bf16ToNumber(stored[i]!);
  return values;
}
