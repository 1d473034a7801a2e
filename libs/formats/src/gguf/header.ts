import { FormatError } from "../errors.ts";
import type { StoredDType } from "../safetensors/dtypes.ts";
import { byteLengthOf } from "../safetensors/extent.ts";
import { damaged, GgufCursor } from "./cursor.ts";
import { type GgufLimits, MAX_DIMENSIONS } from "./limits.ts";
import {
  ALIGNMENT_KEY,
  alignUp,
  DEFAULT_ALIGNMENT,
  type GgufValue,
  MAGIC,
  TENSOR_TYPES,
  VERSION,
} from "./types.ts";

/** One tensor of a header. */
export interface GgufEntry {
  readonly name: string;
  readonly dtype: StoredDType;
  /** Row-major, so in the reverse order of ggml's dimensions. */
  readonly shape: readonly number[];
  /** Position in the file. */
  readonly start: number;
  readonly byteLength: number;
}

export interface GgufHeader {
  readonly values: ReadonlyMap<string, GgufValue>;
  /** In the order of their bytes in the file. */
  readonly entries: readonly GgufEntry[];
}

/**
 * Parses and validates the beginning of a GGUF file of version 2 or 3.
 *
 * @param bytes from the file's start; {@linkcode OutOfBytes} where there are too few
 * @throws {FormatError} `gguf_invalid`, `gguf_version`, `too_many_tensors`, `duplicate_key`, `unsupported_dtype`,
 * `invalid_offset`, `metadata_incomplete_buffer`, `too_many_dimensions`, `validation_overflow`, `unsafe_integer`,
 * `invalid_header`
 */
export function parseHeader(
  bytes: Uint8Array,
  fileSize: number,
  limits: GgufLimits,
  where: string,
): GgufHeader {
  const cursor = new GgufCursor(bytes, where);
  checkMagic(cursor, where);
  const tensorCount = checkCount(cursor.uint64("the number of tensors"), limits.maxTensors, "tensors", where);
  const valueCount = checkCount(cursor.uint64("the number of values"), limits.maxValues, "values", where);
  const values = readValues(cursor, valueCount, where);
  const infos = Array.from({ length: tensorCount }, () => readInfo(cursor, where));
  const alignment = alignmentOf(values.get(ALIGNMENT_KEY), where);
  const dataStart = alignUp(cursor.position, alignment);
  const entries = infos.map((info) => toEntry(info, dataStart, alignment, where));
  entries.sort((a, b) => a.start - b.start || a.byteLength - b.byteLength);
  checkPlaces(entries, fileSize, where);
  return { values, entries };
}

function checkMagic(cursor: GgufCursor, where: string): void {
  const magic = cursor.uint32();
  if (magic !== new DataView(new TextEncoder().encode(MAGIC).buffer).getUint32(0, true)) {
    throw damaged("gguf_invalid", "the file does not begin with GGUF", where);
  }
  const version = cursor.uint32();
  if (version === 2 || version === VERSION) return;
  const isBigEndian = version > 0xffff && (version & 0xffff) === 0;
  throw new FormatError(
    "gguf_version",
    isBigEndian
      ? "the file is big-endian, little-endian was expected"
      : `the file has GGUF version ${version}, 2 or 3 was expected`,
    "Write it again with a current llama.cpp on a little-endian machine.",
    where,
  );
}

function checkCount(count: number, limit: number, what: string, where: string): number {
  if (count <= limit) return count;
  throw damaged(
    `too_many_${what}`,
    `the header announces ${count} ${what}, at most ${limit} are allowed`,
    where,
  );
}

function readValues(cursor: GgufCursor, count: number, where: string): Map<string, GgufValue> {
  const values = new Map<string, GgufValue>();
  for (let i = 0; i < count; i++) {
    const key = cursor.string("a key");
    if (values.has(key)) throw duplicate(key, where);
    values.set(key, cursor.value(cursor.valueType(key), key));
  }
  return values;
}

interface TensorInfo {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: number;
  readonly offset: number;
}

function readInfo(cursor: GgufCursor, file: string): TensorInfo {
  const name = cursor.string("a tensor's name");
  const where = `${file} ${name}`;
  const dimensions = cursor.uint32();
  if (dimensions > MAX_DIMENSIONS) {
    throw damaged(
      "too_many_dimensions",
      `the tensor has ${dimensions} dimensions, at most ${MAX_DIMENSIONS} are allowed`,
      where,
    );
  }
  const extents = Array.from({ length: dimensions }, () => cursor.uint64("a dimension"));
  return { name, shape: extents.reverse(), type: cursor.uint32(), offset: cursor.uint64("an offset") };
}

function toEntry(info: TensorInfo, dataStart: number, alignment: number, file: string): GgufEntry {
  const { name, shape, type, offset } = info;
  const where = `${file} ${name}`;
  const dtype = TENSOR_TYPES.get(type);
  if (!dtype) {
    throw new FormatError(
      "unsupported_dtype",
      `the tensor has ggml's type ${type}, which is quantised or unknown; F32, F16 or BF16 was expected`,
      "Convert the adapter again with convert_lora_to_gguf.py --outtype f32.",
      where,
    );
  }
  if (offset % alignment !== 0) {
    throw damaged("invalid_offset", `the tensor begins at ${offset}, no multiple of ${alignment}`, where);
  }
  return { name, dtype, shape, start: dataStart + offset, byteLength: byteLengthOf(dtype, shape, where) };
}

function alignmentOf(value: GgufValue | undefined, where: string): number {
  if (value === undefined) return DEFAULT_ALIGNMENT;
  const isPower = typeof value === "number" && Number.isInteger(Math.log2(value)) && value >= 8;
  if (isPower && value <= 1 << 20) return value;
  throw damaged(
    "gguf_invalid",
    `${ALIGNMENT_KEY} is ${String(value)}, a power of 2 from 8 on was expected`,
    where,
  );
}

/** Sorted by their start, the tensors must lie in the file, each with a name of its own, without overlaps. */
function checkPlaces(entries: readonly GgufEntry[], fileSize: number, file: string): void {
  const names = new Set<string>();
  let covered = 0;
  for (const { name, start, byteLength } of entries) {
    const where = `${file} ${name}`;
    if (names.has(name)) throw duplicate(name, file);
    names.add(name);
    if (start < covered) {
      throw damaged("invalid_offset", `the tensor begins inside one that ends at ${covered}`, where);
    }
    covered = start + byteLength;
    if (covered <= fileSize) continue;
    throw damaged(
      "metadata_incomplete_buffer",
      `the file is cut short: the tensor ends at byte ${covered}, the file has ${fileSize}`,
      where,
    );
  }
}

function duplicate(key: string, where: string): FormatError {
  return damaged("duplicate_key", `${JSON.stringify(key)} stands there twice`, `${where} ${key}`);
}
