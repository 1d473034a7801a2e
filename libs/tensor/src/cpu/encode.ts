import type { DType } from "../tensor.ts";

const single = new Float32Array(1);
const bits = new Uint32Array(single.buffer);

/** The bfloat16 bit pattern nearest to a number, through float32; ties go to even, a NaN stays a NaN. */
function numberToBf16(value: number): number {
  single[0] = value;
  const word = bits[0]!;
  if (Number.isNaN(value)) return (word >>> 16) | 0x40;
  return ((word + 0x7fff + ((word >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The elements as `dtype`, each rounded once to float32 and then to nearest, ties to even; as packed bytes. */
export function encodeElements(
  values: Float64Array | Uint32Array,
  dtype: DType,
):
  | Float32Array<ArrayBuffer>
  | Float16Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Uint32Array<ArrayBuffer> {
  switch (dtype) {
    case "u32":
      return Uint32Array.from(values, (value) => Math.min(Math.max(Math.trunc(value), 0), 0xffffffff));
    case "f32":
      return Float32Array.from(values);
    case "f16":
      return Float16Array.from(Float32Array.from(values));
    case "bf16":
      return Uint16Array.from(values, numberToBf16);
  }
}
