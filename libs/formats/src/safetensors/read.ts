import { resolve } from "node:path";
import { FormatError } from "../errors.ts";
import { RandomAccessFile } from "../io/random_access_file.ts";
import { widen } from "../numbers/widen.ts";
import type { StoredDType } from "./dtypes.ts";
import { byteLengthOf } from "./extent.ts";
import { headerLength, parseHeader, type TensorEntry } from "./header.ts";
import { DEFAULT_LIMITS, type SafetensorsLimits } from "./limits.ts";

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

/** Tensors by name, from one file or from the shards of a folder. */
export interface SafetensorsFile {
  readonly path: string;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly metadata: Readonly<Record<string, string>>;
  /** Every file that was read: shards and their index too. */
  readonly files: readonly string[];
  close(): void;
  [Symbol.dispose](): void;
}

/**
 * Opens a safetensors file and checks its whole header; tensors are read later, in ranges.
 *
 * @throws {FormatError} one code for each way the file can be wrong; see the README's table
 */
export async function openSafetensors(
  path: string,
  limits: Partial<SafetensorsLimits> = {},
): Promise<SafetensorsFile> {
  const file = await RandomAccessFile.open(path, "read");
  try {
    return await readOpenFile(file, { ...DEFAULT_LIMITS, ...limits });
  } catch (error) {
    file.close();
    throw error;
  }
}

async function readOpenFile(file: RandomAccessFile, limits: SafetensorsLimits): Promise<SafetensorsFile> {
  const prefix = await file.read(0, Math.min(8, file.size));
  const length = headerLength(prefix, file.size, limits, file.path);
  const bufferStart = 8 + length;
  const header = parseHeader(await file.read(8, length), file.size - bufferStart, limits, file.path);
  const tensors = new Map(
    header.entries.map((entry) => [entry.name, new FileTensor(file, entry, bufferStart)]),
  );
  const close = () => file.close();
  const path = resolve(file.path);
  return { path, tensors, metadata: header.metadata, files: [path], close, [Symbol.dispose]: close };
}

class FileTensor implements StoredTensor {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  readonly byteLength: number;
  readonly #file: RandomAccessFile;
  readonly #start: number;

  constructor(file: RandomAccessFile, { name, dtype, shape, begin, end }: TensorEntry, bufferStart: number) {
    this.name = name;
    this.dtype = dtype;
    this.shape = shape;
    this.byteLength = end - begin;
    this.#file = file;
    this.#start = bufferStart + begin;
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
    const [rows, ...row] = this.shape;
    if (rows === undefined || !isRange(start, end, rows)) {
      throw new FormatError(
        "invalid_range",
        `rows ${start} to ${end} were asked of a tensor of shape [${this.shape.join(", ")}]`,
        "Ask for 0 ≤ start ≤ end ≤ the first dimension.",
        this.#where,
      );
    }
    const from = byteLengthOf(this.dtype, [start, ...row], this.#where);
    const to = byteLengthOf(this.dtype, [end, ...row], this.#where);
    return this.#file.read(this.#start + from, to - from);
  }

  get #where(): string {
    return `${this.#file.path} ${this.name}`;
  }
}

function isRange(start: number, end: number, limit: number): boolean {
  return Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start <= end && end <= limit;
}
