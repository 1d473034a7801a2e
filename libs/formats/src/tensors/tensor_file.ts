import type { StoredDType } from "../safetensors/dtypes.ts";

/** A tensor in a file: its description is in memory, its values are read when asked for. */
export interface StoredTensor {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  readonly byteLength: number;
  /** The raw little-endian bytes, in a buffer of their own and therefore aligned for any typed array. */
  read(): Promise<Uint8Array<ArrayBuffer>>;
  /** The values as float32: exact, but for F64 and integers of 32 and 64 bits, which are rounded. */
  readFloat32(): Promise<Float32Array<ArrayBuffer>>;
  /** The raw bytes of rows `[start, end)` of the first dimension. */
  readRows(start: number, end: number): Promise<Uint8Array<ArrayBuffer>>;
}

/** Tensors by name, from one file or from the shards of a folder, whatever the container. */
export interface TensorFile {
  readonly path: string;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly metadata: Readonly<Record<string, string>>;
  /** Every file that was read: shards and their index too. */
  readonly files: readonly string[];
  close(): void;
  [Symbol.dispose](): void;
}
