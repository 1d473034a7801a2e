import { FormatError } from "../errors.ts";
import { JsonError, type JsonObject, type JsonProblem, type JsonValue, parseJson } from "../json/parse.ts";
import { isStoredDType, STORED_DTYPES, type StoredDType } from "./dtypes.ts";
import { byteLengthOf } from "./extent.ts";
import type { SafetensorsLimits } from "./limits.ts";

/** One tensor of a header; `[begin, end)` are byte offsets into the buffer that follows the header. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  /** In the order of their bytes in the file. */
  readonly entries: readonly TensorEntry[];
  readonly metadata: Readonly<Record<string, string>>;
}

const DAMAGED = "The file is damaged or was not written by a safetensors library: fetch or write it again.";
const METADATA = "__metadata__";
const INFO_KEYS = ["dtype", "shape", "data_offsets"] as const;

/**
 * The header's length N from the first 8 bytes, checked against the file and the limit.
 *
 * @throws {FormatError} `header_too_small`, `header_too_large`, `invalid_header_length`
 */
export function headerLength(
  prefix: Uint8Array,
  fileSize: number,
  limits: SafetensorsLimits,
  where: string,
): number {
  if (prefix.length < 8) {
    throw new FormatError(
      "header_too_small",
      `the file has ${fileSize} bytes, at least 8 were expected`,
      DAMAGED,
      where,
    );
  }
  // Exact only as a 64-bit integer: as a double it could round below a limit.
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(limits.maxHeaderBytes)) {
    throw new FormatError(
      "header_too_large",
      `the header claims ${length} bytes, at most ${limits.maxHeaderBytes} are allowed: this is no safetensors file`,
      "Name a .safetensors file; if it should be one, it is damaged: fetch or write it again.",
      where,
    );
  }
  if (8n + length > BigInt(fileSize)) {
    throw new FormatError(
      "invalid_header_length",
      `the header claims ${length} bytes, but only ${fileSize - 8} follow`,
      DAMAGED,
      where,
    );
  }
  return Number(length);
}

/**
 * Parses and validates a header against the length of the buffer behind it: every rule of the safetensors format.
 *
 * @throws {FormatError} one code for each way a header can be wrong; see the README's table
 */
export function parseHeader(
  bytes: Uint8Array,
  bufferLength: number,
  limits: SafetensorsLimits,
  where: string,
): SafetensorsHeader {
  const members = parseMembers(decodeHeader(bytes, where), limits, where);
  const metadata = readMetadata(members.get(METADATA), where);
  members.delete(METADATA);
  if (members.size > limits.maxTensors) throw tooManyTensors(limits, where);
  const entries = [...members].map(([name, info]) => readEntry(name, info, limits, where));
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  checkCoverage(entries, bufferLength, where);
  return { entries, metadata };
}

function decodeHeader(bytes: Uint8Array, where: string): string {
  try {
    // A byte order mark stays in the text, where the JSON parser refuses it.
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new FormatError("invalid_header", "the header is not UTF-8", DAMAGED, where);
  }
}

const HEADER_CODES: Record<JsonProblem, string> = {
  syntax: "invalid_header_deserialization",
  duplicate_key: "duplicate_key",
  unsafe_integer: "unsafe_integer",
  invalid_number: "invalid_header_deserialization",
  too_deep: "invalid_header_deserialization",
  too_many_members: "too_many_tensors",
  array_too_long: "too_many_dimensions",
};

function parseMembers(text: string, limits: SafetensorsLimits, where: string): JsonObject {
  const json = withoutPadding(text, where);
  let value: JsonValue;
  try {
    value = parseJson(json, {
      maxDepth: 3,
      maxMembers: limits.maxTensors + 1, // the metadata's entry counts too
      maxArrayLength: Math.max(limits.maxDimensions, 2),
      naturalNumbers: true,
    });
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    throw new FormatError(
      HEADER_CODES[error.problem],
      `the header: ${error.message}`,
      DAMAGED,
      at(where, error.path[0]),
    );
  }
  if (value instanceof Map) return value;
  throw malformed("the header is no JSON object", where);
}

function withoutPadding(text: string, where: string): string {
  // Its own code: some writers pad with NUL, which other readers then hand to a JSON parser that stops there.
  if (text.endsWith("\0")) {
    throw new FormatError(
      "header_nul_padding",
      "the header is padded with NUL, expected spaces",
      DAMAGED,
      where,
    );
  }
  if (!/^[ \t\n\r]*\{/.test(text)) {
    throw new FormatError(
      "invalid_header_start",
      `the header starts with ${JSON.stringify(text.slice(0, 8))}, expected "{"`,
      DAMAGED,
      where,
    );
  }
  return text;
}

function readMetadata(value: JsonValue | undefined, where: string): Readonly<Record<string, string>> {
  if (value === undefined) return {};
  if (!(value instanceof Map)) throw badMetadata(`${METADATA} is no object`, where);
  for (const [key, item] of value) {
    if (typeof item !== "string") {
      throw badMetadata(`${METADATA} holds a value that is no string at ${JSON.stringify(key)}`, where);
    }
  }
  return Object.freeze(Object.fromEntries(value as Map<string, string>));
}

function badMetadata(message: string, where: string): FormatError {
  return new FormatError(
    "metadata_not_string",
    `${message}; expected strings only`,
    DAMAGED,
    at(where, METADATA),
  );
}

function readEntry(name: string, info: JsonValue, limits: SafetensorsLimits, file: string): TensorEntry {
  const where = at(file, name);
  if (!(info instanceof Map)) throw malformed("the tensor's entry is no object", where);
  for (const key of info.keys()) {
    if (!(INFO_KEYS as readonly string[]).includes(key)) {
      throw malformed(`the tensor's entry has the unknown key ${JSON.stringify(key)}`, where);
    }
  }
  const dtype = readDType(info.get("dtype"), where);
  const shape = readNaturals(info.get("shape"), "shape", where);
  if (shape.length > limits.maxDimensions) {
    throw new FormatError(
      "too_many_dimensions",
      `the tensor has ${shape.length} dimensions, at most ${limits.maxDimensions} are allowed`,
      DAMAGED,
      where,
    );
  }
  const [begin, end, ...rest] = readNaturals(info.get("data_offsets"), "data_offsets", where);
  if (begin === undefined || end === undefined || rest.length > 0) {
    throw malformed("data_offsets does not hold two numbers", where);
  }
  const entry = { name, dtype, shape, begin, end };
  checkExtent(entry, where);
  return entry;
}

function readDType(value: JsonValue | undefined, where: string): StoredDType {
  if (typeof value !== "string") throw malformed("the tensor has no dtype", where);
  if (isStoredDType(value)) return value;
  throw new FormatError(
    "unknown_dtype",
    `the dtype ${JSON.stringify(value)} is unknown; known are ${STORED_DTYPES.join(", ")}`,
    "Write the file again with one of the known dtypes.",
    where,
  );
}

function readNaturals(value: JsonValue | undefined, key: string, where: string): number[] {
  if (Array.isArray(value) && value.every((item) => typeof item === "number")) return value;
  throw malformed(`${key} is no list of numbers`, where);
}

function checkExtent({ dtype, shape, begin, end }: TensorEntry, where: string): void {
  if (end < begin) throw badOffset(`the tensor ends at ${end}, before its begin ${begin}`, where);
  const expected = byteLengthOf(dtype, shape, where);
  if (end - begin === expected) return;
  throw new FormatError(
    "tensor_invalid_info",
    `the tensor takes ${end - begin} bytes, but ${dtype} [${shape.join(", ")}] needs ${expected}`,
    DAMAGED,
    where,
  );
}

/** Sorted by begin, the tensors must cover the buffer from 0 to its end without a hole or an overlap. */
function checkCoverage(entries: readonly TensorEntry[], bufferLength: number, where: string): void {
  let covered = 0;
  for (const { name, begin, end } of entries) {
    if (begin < covered) {
      throw badOffset(`the tensor begins at ${begin}, inside one that ends at ${covered}`, at(where, name));
    }
    if (begin > covered) {
      throw badOffset(`the bytes ${covered} to ${begin} before the tensor belong to none`, at(where, name));
    }
    covered = end;
  }
  if (covered === bufferLength) return;
  const problem = covered < bufferLength ? "trailing bytes follow the last tensor" : "the file is cut short";
  throw new FormatError(
    "metadata_incomplete_buffer",
    `${problem}: the header describes ${covered} bytes, the file holds ${bufferLength}`,
    DAMAGED,
    where,
  );
}

function tooManyTensors(limits: SafetensorsLimits, where: string): FormatError {
  return new FormatError(
    "too_many_tensors",
    `there are more than ${limits.maxTensors} tensors`,
    "Raise maxTensors.",
    where,
  );
}

function badOffset(message: string, where: string): FormatError {
  return new FormatError("invalid_offset", message, DAMAGED, where);
}

function malformed(message: string, where: string): FormatError {
  return new FormatError("invalid_header_deserialization", message, DAMAGED, where);
}

function at(file: string, name: string | undefined): string {
  return name === undefined ? file : `${file} ${name}`;
}
