import { promises as fs } from "node:fs";
import { FormatError } from "../errors.ts";
import { RandomAccessFile } from "../io/random_access_file.ts";
import type { StoredDType } from "../safetensors/dtypes.ts";
import { byteLengthOf } from "../safetensors/extent.ts";
import { FileWriter, type SafetensorsWriter, type TensorDescription } from "../safetensors/write.ts";
import { MAX_DIMENSIONS } from "./limits.ts";
import {
  alignUp,
  DEFAULT_ALIGNMENT,
  type GgufValueType,
  MAGIC,
  TENSOR_TYPES,
  VALUE_TYPES,
  VERSION,
} from "./types.ts";

/** A typed value of the header that is written. */
export type WrittenValue =
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "uint32"; readonly value: number }
  | { readonly type: "float32"; readonly value: number };

const TYPE_NUMBERS: ReadonlyMap<StoredDType, number> = new Map(
  [...TENSOR_TYPES].map(([number, dtype]) => [dtype, number]),
);

/**
 * Creates a GGUF file: the header at once, then tensors at their offsets, in any order. Equal content gives equal bytes.
 *
 * @throws {FormatError} `target_exists`, `disk_full`, `duplicate_key`, `too_many_dimensions`, `unsupported_dtype`, …
 */
export async function createGgufWriter(
  path: string,
  entries: readonly TensorDescription[],
  values: ReadonlyMap<string, WrittenValue>,
): Promise<SafetensorsWriter> {
  const { header, places, size } = layOut(entries, values, path);
  const file = await RandomAccessFile.open(path, "create");
  try {
    await file.write(0, header);
    // Readers take the last tensor with its padding too.
    if (size > header.length) await file.write(size - 1, new Uint8Array(1));
    return new FileWriter(file, header.length, places);
  } catch (error) {
    file.close();
    await fs.rm(path, { force: true });
    throw error;
  }
}

interface FileLayout {
  readonly header: Uint8Array;
  /** Relative to the end of the header. */
  readonly places: Map<string, { begin: number; end: number }>;
  /** Bytes of the whole file. */
  readonly size: number;
}

function layOut(
  entries: readonly TensorDescription[],
  values: ReadonlyMap<string, WrittenValue>,
  where: string,
): FileLayout {
  const places: FileLayout["places"] = new Map();
  const infos: Uint8Array[] = [];
  let begin = 0;
  for (const entry of [...entries].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))) {
    if (places.has(entry.name)) throw duplicate(entry.name, where);
    const end = begin + byteLengthOf(entry.dtype, entry.shape, `${where} ${entry.name}`);
    infos.push(encodeInfo(entry, begin, where));
    places.set(entry.name, { begin, end });
    begin = alignUp(end, DEFAULT_ALIGNMENT);
  }
  const fields = [
    new TextEncoder().encode(MAGIC),
    uint32(VERSION),
    uint64(entries.length),
    uint64(values.size),
    ...[...values].map(([key, value]) => encodeValue(key, value)),
    ...infos,
  ];
  const length = fields.reduce((sum, field) => sum + field.length, 0);
  const header = new Uint8Array(alignUp(length, DEFAULT_ALIGNMENT));
  concatenateInto(header, fields);
  return { header, places, size: header.length + begin };
}

function encodeInfo({ name, dtype, shape }: TensorDescription, offset: number, where: string): Uint8Array {
  const type = TYPE_NUMBERS.get(dtype);
  if (type === undefined) {
    throw new FormatError(
      "unsupported_dtype",
      `GGUF has no plain type for ${dtype}`,
      "Write F32, F16 or BF16.",
      `${where} ${name}`,
    );
  }
  if (shape.length > MAX_DIMENSIONS) {
    throw new FormatError(
      "too_many_dimensions",
      `the tensor has ${shape.length} dimensions, at most ${MAX_DIMENSIONS} are possible`,
      "Choose another layout.",
      `${where} ${name}`,
    );
  }
  const extents = [...shape].reverse().map(uint64);
  return concatenate([text(name), uint32(shape.length), ...extents, uint32(type), uint64(offset)]);
}

function encodeValue(key: string, written: WrittenValue): Uint8Array {
  return concatenate([text(key), uint32(typeNumber(written.type)), encodeScalar(written)]);
}

function encodeScalar(written: WrittenValue): Uint8Array {
  switch (written.type) {
    case "string":
      return text(written.value);
    case "uint32":
      return uint32(written.value);
    case "float32":
      return new Uint8Array(new Float32Array([written.value]).buffer);
  }
}

function typeNumber(type: GgufValueType): number {
  return VALUE_TYPES.indexOf(type);
}

function text(value: string): Uint8Array {
  const bytes = new TextEncoder().encode(value);
  return concatenate([uint64(bytes.length), bytes]);
}

function uint32(value: number): Uint8Array {
  return new Uint8Array(new Uint32Array([value]).buffer);
}

function uint64(value: number): Uint8Array {
  return new Uint8Array(new BigUint64Array([BigInt(value)]).buffer);
}

function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const result = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  concatenateInto(result, parts);
  return result;
}

function concatenateInto(target: Uint8Array, parts: readonly Uint8Array[]): void {
  let position = 0;
  for (const part of parts) {
    target.set(part, position);
    position += part.length;
  }
}

function duplicate(name: string, where: string): FormatError {
  return new FormatError(
    "duplicate_key",
    `two tensors are named ${name}`,
    "Give each tensor a name of its own.",
    `${where} ${name}`,
  );
}
