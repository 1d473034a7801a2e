import { FormatError } from "../errors.ts";
import type { RandomAccessFile } from "../io/random_access_file.ts";
import { widen } from "../numbers/widen.ts";
import type { StoredDType } from "../safetensors/dtypes.ts";
import { byteLengthOf } from "../safetensors/extent.ts";
import type { StoredTensor } from "./tensor_file.ts";

/** Where a tensor lies: `[start, start + byteLength)` in the file. */
export interface TensorPlace {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  readonly start: number;
  readonly byteLength: number;
}

/** A tensor whose bytes lie in one piece of a file. */
export class FileTensor implements StoredTensor {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  readonly byteLength: number;
  readonly #file: RandomAccessFile;
  readonly #start: number;

  constructor(file: RandomAccessFile, { name, dtype, shape, start, byteLength }: TensorPlace) {
    this.name = name;
    this.dtype = dtype;
    this.shape = shape;
    this.byteLength = byteLength;
    this.#file = file;
    this.#start = start;
  }

  read(): Promise<Uint8Array<ArrayBuffer>> {
    return this.#file.read(this.#start, this.byteLength);
  }

  async readFloat32(): Promise<Float32Array<ArrayBuffer>> {
    return widen(this.dtype, await this.read(), this.#where);
  }

  // Async, so that a wrong range rejects like every other failure of a read.
  // deno-lint-ignore require-await
  async readRows(start: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
    const { from, to } = rowRange(this, start, end, this.#where);
    return this.#file.read(this.#start + from, to - from);
  }

  get #where(): string {
    return `${this.#file.path} ${this.name}`;
  }
}

/**
 * The bytes of rows `[start, end)` of a tensor's first dimension.
 *
 * @throws {FormatError} `invalid_range`
 */
export function rowRange(
  { dtype, shape }: Pick<StoredTensor, "dtype" | "shape">,
  start: number,
  end: number,
  where: string,
): { from: number; to: number } {
  const [rows, ...row] = shape;
  if (rows === undefined || !isRange(start, end, rows)) {
    throw new FormatError(
      "invalid_range",
      `rows ${start} to ${end} were asked of a tensor of shape [${shape.join(", ")}]`,
      "Ask for 0 ≤ start ≤ end ≤ the first dimension.",
      where,
    );
  }
  return {
    from: byteLengthOf(dtype, [start, ...row], where),
    to: byteLengthOf(dtype, [end, ...row], where),
  };
}

function isRange(start: number, end: number, limit: number): boolean {
  return Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start <= end && end <= limit;
}
