import { Inflate } from "fflate";
import { resolve } from "node:path";
import { FormatError } from "../errors.ts";
import { allocate, RandomAccessFile } from "../io/random_access_file.ts";
import { widen } from "../numbers/widen.ts";
import { byteLengthOf } from "../safetensors/extent.ts";
import { transposedTensor } from "../tensors/derived_tensor.ts";
import { FileTensor, rowRange } from "../tensors/file_tensor.ts";
import type { StoredTensor, TensorFile } from "../tensors/tensor_file.ts";
import { dataOffset, readCentralDirectory, type ZipEntry } from "./central_directory.ts";
import { LONGEST_PREFIX, type NpyHeader, npyHeaderLength, parseNpyHeader } from "./npy_header.ts";

const EXTENSION = ".npy";
/** Compressed data are inflated in pieces of this size. */
const PIECE = 1 << 20;

/**
 * Opens a `.npz` archive of NumPy: arrays by name, read when asked for. Uncompressed arrays (`numpy.savez`) are read in
 * ranges; compressed ones (`numpy.savez_compressed`) are inflated whole at each read.
 *
 * @throws {FormatError} `zip_invalid`, `zip_unsupported`, `npy_invalid`, `unsupported_dtype`, `pickle_refused`,
 * `duplicate_key`, `validation_overflow`
 */
export async function openNpz(path: string): Promise<TensorFile> {
  const file = await RandomAccessFile.open(path, "read");
  try {
    const tensors = new Map<string, StoredTensor>();
    for (const entry of await readCentralDirectory(file)) {
      const tensor = await openArray(file, entry);
      if (tensors.has(tensor.name)) throw duplicate(tensor.name, path);
      tensors.set(tensor.name, tensor);
    }
    const close = () => file.close();
    const absolute = resolve(path);
    return { path: absolute, tensors, metadata: {}, files: [absolute], close, [Symbol.dispose]: close };
  } catch (error) {
    file.close();
    throw error;
  }
}

async function openArray(file: RandomAccessFile, entry: ZipEntry): Promise<StoredTensor> {
  const where = `${file.path} ${entry.name}`;
  if (!entry.name.endsWith(EXTENSION)) {
    throw damaged(`${entry.name} is no array (${EXTENSION})`, where);
  }
  const source = new EntryReader(file, entry, await dataOffset(file, entry));
  const length = npyHeaderLength(await source.read(0, Math.min(LONGEST_PREFIX, entry.size)), where);
  if (length > entry.size) throw damaged("the array ends in its header", where);
  const header = parseNpyHeader(await source.read(0, length), where);
  const bytes = byteLengthOf(header.dtype, header.shape, where);
  if (length + bytes !== entry.size) {
    throw damaged(`the array has ${entry.size - length} bytes, its shape needs ${bytes}`, where);
  }
  return inRowOrder(toTensor(source, entry.name.slice(0, -EXTENSION.length), header), header, where);
}

/** The array as it lies in the file; of a Fortran array that is its transpose. */
function toTensor(source: EntryReader, name: string, header: NpyHeader): StoredTensor {
  const { dtype, length } = header;
  const shape = header.isFortran ? [...header.shape].reverse() : header.shape;
  const byteLength = byteLengthOf(dtype, shape, name);
  return source.start === undefined
    ? new InflatedTensor(source, { name, dtype, shape, byteLength, start: length })
    : new FileTensor(source.file, { name, dtype, shape, byteLength, start: source.start + length });
}

function inRowOrder(tensor: StoredTensor, { isFortran, shape }: NpyHeader, where: string): StoredTensor {
  if (!isFortran || shape.length < 2) return tensor;
  if (shape.length === 2) return transposedTensor(tensor);
  throw new FormatError(
    "npy_invalid",
    `the array has ${shape.length} dimensions in Fortran's order, at most 2 were expected`,
    "Save it in C's order: numpy.ascontiguousarray(array).",
    where,
  );
}

/** The bytes of one entry, stored or compressed. */
class EntryReader {
  readonly file: RandomAccessFile;
  /** Where its bytes lie in the file; undefined where they are compressed. */
  readonly start: number | undefined;
  readonly #entry: ZipEntry;
  readonly #offset: number;

  constructor(file: RandomAccessFile, entry: ZipEntry, offset: number) {
    this.file = file;
    this.start = entry.isCompressed ? undefined : offset;
    this.#entry = entry;
    this.#offset = offset;
  }

  /** Bytes `[start, start + length)` of the entry's content. */
  async read(start: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    if (this.start !== undefined) return await this.file.read(this.start + start, length);
    const result = allocate(length, this.#where);
    let position = 0;
    const take = (chunk: Uint8Array) => {
      const from = Math.max(start - position, 0);
      const to = Math.min(start + length - position, chunk.length);
      if (from < to) result.set(chunk.subarray(from, to), position + from - start);
      position += chunk.length;
    };
    await this.#inflate(take, () => position >= start + length);
    if (position < start + length) throw damaged("the array is shorter than it says", this.#where);
    return result;
  }

  async #inflate(take: (chunk: Uint8Array) => void, isDone: () => boolean): Promise<void> {
    const inflate = new Inflate(take);
    const { compressedSize } = this.#entry;
    for (let at = 0; at < compressedSize && !isDone(); at += PIECE) {
      const size = Math.min(PIECE, compressedSize - at);
      const bytes = await this.file.read(this.#offset + at, size);
      try {
        inflate.push(bytes, at + size === compressedSize);
      } catch (error) {
        throw damaged(`it cannot be decompressed (${(error as Error).message})`, this.#where);
      }
    }
  }

  get #where(): string {
    return `${this.file.path} ${this.#entry.name}`;
  }
}

/** A tensor in a compressed entry, inflated whole each time it is read. */
class InflatedTensor implements StoredTensor {
  readonly name: string;
  readonly dtype: StoredTensor["dtype"];
  readonly shape: readonly number[];
  readonly byteLength: number;
  readonly #source: EntryReader;
  readonly #start: number;

  constructor(
    source: EntryReader,
    { name, dtype, shape, byteLength, start }:
      & Pick<StoredTensor, "name" | "dtype" | "shape" | "byteLength">
      & { readonly start: number },
  ) {
    this.name = name;
    this.dtype = dtype;
    this.shape = shape;
    this.byteLength = byteLength;
    this.#source = source;
    this.#start = start;
  }

  read(): Promise<Uint8Array<ArrayBuffer>> {
    return this.#source.read(this.#start, this.byteLength);
  }

  async readFloat32(): Promise<Float32Array<ArrayBuffer>> {
    return widen(this.dtype, await this.read(), this.name);
  }

  // Async, so that a wrong range rejects like every other failure of a read.
  // deno-lint-ignore require-await
  async readRows(start: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
    const { from, to } = rowRange(this, start, end, this.name);
    return this.#source.read(this.#start + from, to - from);
  }
}

function damaged(message: string, where: string): FormatError {
  return new FormatError("npy_invalid", message, "Write the file again with numpy.savez.", where);
}

function duplicate(name: string, path: string): FormatError {
  return new FormatError(
    "duplicate_key",
    `the array ${name} stands there twice`,
    "Write the file again with numpy.savez.",
    `${path} ${name}`,
  );
}
