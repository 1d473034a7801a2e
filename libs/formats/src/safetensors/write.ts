import { promises as fs } from "node:fs";
import { FormatError } from "../errors.ts";
import { RandomAccessFile } from "../io/random_access_file.ts";
import { bitsOf, type StoredDType } from "./dtypes.ts";
import { byteLengthOf } from "./extent.ts";

/** A tensor to be written. */
export interface TensorDescription {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
}

export interface SafetensorsWriter {
  readonly path: string;
  /** Writes one tensor's little-endian bytes; tensors may come in any order, each once. */
  write(name: string, bytes: Uint8Array): Promise<void>;
  /** Checks that every tensor was written, flushes the file to the disk and closes it. */
  finish(): Promise<void>;
  /** Closes and removes the file. */
  abort(): Promise<void>;
}

/** A tensor's place in the buffer behind the header. */
interface Place {
  readonly begin: number;
  readonly end: number;
}

/**
 * Creates a safetensors file: the header at once, then tensors at their offsets. The layout is that of the reference
 * (dtypes by falling alignment, then names; the header padded to 8 bytes), with sorted metadata, so that equal content
 * gives equal bytes.
 *
 * @throws {FormatError} `target_exists`, `disk_full`, `duplicate_key`, `invalid_name`, `invalid_shape`, …
 */
export async function createSafetensorsWriter(
  path: string,
  entries: readonly TensorDescription[],
  metadata: Readonly<Record<string, string>> = {},
): Promise<SafetensorsWriter> {
  const { header, places } = layOut(entries, metadata, path);
  const file = await RandomAccessFile.open(path, "create");
  try {
    return await startWriting(file, header, places);
  } catch (error) {
    file.close();
    await fs.rm(path, { force: true });
    throw error;
  }
}

/** As {@linkcode createSafetensorsWriter}, on a file that is already open for writing. */
export async function startWriting(
  file: RandomAccessFile,
  header: Uint8Array,
  places: ReadonlyMap<string, Place>,
): Promise<SafetensorsWriter> {
  await file.write(0, header);
  return new FileWriter(file, header.length, places);
}

/** The header's bytes, length prefix and padding included, and each tensor's place behind it. */
export function layOut(
  entries: readonly TensorDescription[],
  metadata: Readonly<Record<string, string>>,
  where: string,
): { header: Uint8Array<ArrayBuffer>; places: Map<string, Place> } {
  const places = new Map<string, Place>();
  const members: string[] = Object.keys(metadata).length === 0
    ? []
    : [member("__metadata__", sorted(metadata))];
  let begin = 0;
  for (const { name, dtype, shape } of [...entries].sort(byAlignmentThenName)) {
    checkName(name, places, where);
    checkShape(shape, `${where} ${name}`);
    const end = begin + byteLengthOf(dtype, shape, `${where} ${name}`);
    members.push(member(name, { dtype, shape, data_offsets: [begin, end] }));
    places.set(name, { begin, end });
    begin = end;
  }
  return { header: encodeHeader(`{${members.join(",")}}`), places };
}

function byAlignmentThenName(a: TensorDescription, b: TensorDescription): number {
  return bitsOf(b.dtype) - bitsOf(a.dtype) || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
}

/** Written by hand because an object would move names that look like numbers to its front. */
function member(name: string, value: unknown): string {
  return `${JSON.stringify(name)}:${JSON.stringify(value)}`;
}

function sorted(metadata: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.keys(metadata).sort().map((key) => [key, String(metadata[key])]));
}

function encodeHeader(json: string): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder().encode(json);
  const length = Math.ceil(text.length / 8) * 8;
  const header = new Uint8Array(8 + length).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(length), true);
  header.set(text, 8);
  return header;
}

function checkName(name: string, places: ReadonlyMap<string, Place>, where: string): void {
  if (places.has(name)) {
    throw new FormatError(
      "duplicate_key",
      `two tensors are named ${name}`,
      "Give each tensor a name of its own.",
      `${where} ${name}`,
    );
  }
  if (name === "__metadata__" || !name.isWellFormed()) {
    throw new FormatError(
      "invalid_name",
      `a tensor cannot be named ${JSON.stringify(name)}`,
      "Choose another name.",
      where,
    );
  }
}

function checkShape(shape: readonly number[], where: string): void {
  if (shape.every((dimension) => Number.isSafeInteger(dimension) && dimension >= 0)) return;
  throw new FormatError(
    "invalid_shape",
    `the shape [${shape.join(", ")}] holds something else than whole numbers of at least 0`,
    "Give whole numbers.",
    where,
  );
}

/** Writes tensors to the places that a header gave them. */
export class FileWriter implements SafetensorsWriter {
  readonly #file: RandomAccessFile;
  readonly #bufferStart: number;
  readonly #places: ReadonlyMap<string, Place>;
  readonly #written = new Set<string>();

  constructor(file: RandomAccessFile, bufferStart: number, places: ReadonlyMap<string, Place>) {
    this.#file = file;
    this.#bufferStart = bufferStart;
    this.#places = places;
  }

  get path(): string {
    return this.#file.path;
  }

  async write(name: string, bytes: Uint8Array): Promise<void> {
    const place = this.#places.get(name);
    if (!place) throw this.#misuse("tensor_not_found", `the tensor ${name} was not announced`, name);
    const expected = place.end - place.begin;
    if (bytes.length !== expected) {
      throw this.#misuse(
        "tensor_invalid_info",
        `${bytes.length} bytes were given, ${expected} announced`,
        name,
      );
    }
    if (this.#written.has(name)) {
      throw this.#misuse("tensor_written_twice", `the tensor ${name} was written already`, name);
    }
    this.#written.add(name);
    await this.#file.write(this.#bufferStart + place.begin, bytes);
  }

  async finish(): Promise<void> {
    const missing = [...this.#places.keys()].filter((name) => !this.#written.has(name));
    if (missing.length > 0) {
      throw this.#misuse(
        "tensor_missing",
        `${missing.length} tensors were never written, first ${missing[0]}`,
        missing[0]!,
      );
    }
    await this.#file.sync();
    this.#file.close();
  }

  async abort(): Promise<void> {
    this.#file.close();
    await fs.rm(this.#file.path, { force: true });
  }

  #misuse(code: string, message: string, name: string): FormatError {
    return new FormatError(
      code,
      message,
      "Write each announced tensor once, in full.",
      `${this.#file.path} ${name}`,
    );
  }
}
