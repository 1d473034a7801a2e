import type { StoredDType } from "../safetensors/dtypes.ts";

/** Types of the values in a GGUF header, by their number in the file. */
export const VALUE_TYPES = [
  "uint8",
  "int8",
  "uint16",
  "int16",
  "uint32",
  "int32",
  "float32",
  "bool",
  "string",
  "array",
  "uint64",
  "int64",
  "float64",
] as const;
export type GgufValueType = typeof VALUE_TYPES[number];

/** A value of a GGUF header. Integers beyond 2⁵³ are bigints. */
export type GgufValue = string | number | bigint | boolean | readonly GgufValue[];

/** Types of tensors that hold plain numbers, by their number in the file. The others are quantised blocks. */
export const TENSOR_TYPES: ReadonlyMap<number, StoredDType> = new Map([
  [0, "F32"],
  [1, "F16"],
  [24, "I8"],
  [25, "I16"],
  [26, "I32"],
  [27, "I64"],
  [28, "F64"],
  [30, "BF16"],
]);

/** Where tensors begin, unless the header says otherwise: at multiples of this. */
export const DEFAULT_ALIGNMENT = 32;
export const ALIGNMENT_KEY = "general.alignment";
export const MAGIC = "GGUF";
/** The version that is written; 2 differs only in what big-endian files need. */
export const VERSION = 3;

/** `value` rounded up to a multiple of `alignment`. */
export function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}
