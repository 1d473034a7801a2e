import { FormatError } from "../errors.ts";
import { type GgufValue, type GgufValueType, VALUE_TYPES } from "./types.ts";

/** Thrown where a header needs more bytes than were read so far. */
export class OutOfBytes extends Error {
  override readonly name = "OutOfBytes";
}

/** No vocabulary is near this. */
const MAX_ARRAY_LENGTH = 4_000_000;

/** Arrays in arrays are allowed by the format; nobody writes deeper ones. */
const MAX_DEPTH = 4;

/** Reads the little-endian fields of a GGUF header one after the other. */
export class GgufCursor {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #where: string;
  #position = 0;

  constructor(bytes: Uint8Array, where: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#where = where;
  }

  /** Bytes read so far. */
  get position(): number {
    return this.#position;
  }

  uint32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  /** A 64-bit count or offset, which must be an exact number. */
  uint64(what: string): number {
    const value = this.#view.getBigUint64(this.#take(8), true);
    if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
    throw damaged("unsafe_integer", `${what} is ${value}, which is beyond 2⁵³`, this.#where);
  }

  /** @param what names the text in an error */
  string(what: string): string {
    const length = this.uint64(`the length of ${what}`);
    const start = this.#take(length);
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
        this.#bytes.subarray(start, start + length),
      );
    } catch {
      throw damaged("invalid_header", `${what} is not UTF-8`, this.#where);
    }
  }

  valueType(what: string): GgufValueType {
    const number = this.uint32();
    const type = VALUE_TYPES[number];
    if (type) return type;
    throw damaged(
      "gguf_invalid",
      `${what} has the type ${number}, at most ${VALUE_TYPES.length - 1} is known`,
      this.#where,
    );
  }

  value(type: GgufValueType, what: string, depth = 0): GgufValue {
    switch (type) {
      case "uint8":
        return this.#view.getUint8(this.#take(1));
      case "int8":
        return this.#view.getInt8(this.#take(1));
      case "uint16":
        return this.#view.getUint16(this.#take(2), true);
      case "int16":
        return this.#view.getInt16(this.#take(2), true);
      case "uint32":
        return this.uint32();
      case "int32":
        return this.#view.getInt32(this.#take(4), true);
      case "float32":
        return this.#view.getFloat32(this.#take(4), true);
      case "float64":
        return this.#view.getFloat64(this.#take(8), true);
      case "uint64":
        return exact(this.#view.getBigUint64(this.#take(8), true));
      case "int64":
        return exact(this.#view.getBigInt64(this.#take(8), true));
      case "bool":
        return this.#view.getUint8(this.#take(1)) !== 0;
      case "string":
        return this.string(what);
      case "array":
        return this.#array(what, depth + 1);
    }
  }

  #array(what: string, depth: number): GgufValue[] {
    if (depth > MAX_DEPTH) {
      throw damaged("gguf_invalid", `${what} nests arrays more than ${MAX_DEPTH} deep`, this.#where);
    }
    const type = this.valueType(what);
    const length = this.uint64(`the length of ${what}`);
    if (length > MAX_ARRAY_LENGTH) {
      throw damaged(
        "gguf_invalid",
        `${what} has ${length} elements, at most ${MAX_ARRAY_LENGTH} are allowed`,
        this.#where,
      );
    }
    // Every element takes a byte at least, so that a length that lies cannot cost more memory than the file has bytes.
    if (length > this.#bytes.length - this.#position) throw new OutOfBytes();
    return Array.from({ length }, () => this.value(type, what, depth));
  }

  /** Moves over `length` bytes and returns where they start. */
  #take(length: number): number {
    const start = this.#position;
    if (length > this.#bytes.length - start) throw new OutOfBytes();
    this.#position += length;
    return start;
  }
}

function exact(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** The error of a file that breaks the format's rules. */
export function damaged(code: string, message: string, where: string): FormatError {
  return new FormatError(
    code,
    message,
    "The file is damaged or was not written by a GGUF library: fetch or write it again.",
    where,
  );
}
