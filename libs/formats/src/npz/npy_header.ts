import { FormatError } from "../errors.ts";
import type { StoredDType } from "../safetensors/dtypes.ts";

/** What the header of a `.npy` file says. */
export interface NpyHeader {
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  /** Stored column by column. */
  readonly isFortran: boolean;
  /** Bytes of the header: the data begin behind it. */
  readonly length: number;
}

/** NumPy's names of the types that are read: little-endian, or of one byte. */
const DTYPES: Readonly<Record<string, StoredDType>> = {
  "<f2": "F16",
  "<f4": "F32",
  "<f8": "F64",
  "|b1": "BOOL",
  "|i1": "I8",
  "|u1": "U8",
  "<i2": "I16",
  "<u2": "U16",
  "<i4": "I32",
  "<u4": "U32",
  "<i8": "I64",
  "<u8": "U64",
};

const MAGIC = "\x93NUMPY";
/** The part before the text: magic, version, and the text's length in two or four bytes. */
export const LONGEST_PREFIX = 12;
const MAX_TEXT = 1 << 20;

/**
 * Bytes of the whole header, from its first 12.
 *
 * @throws {FormatError} `npy_invalid`
 */
export function npyHeaderLength(prefix: Uint8Array, where: string): number {
  const magic = String.fromCharCode(...prefix.subarray(0, 6));
  const version = prefix[6] ?? 0;
  if (magic !== MAGIC || version < 1 || version > 3 || prefix.length < LONGEST_PREFIX) {
    throw invalid("it does not begin as a .npy file of version 1, 2 or 3", where);
  }
  const view = new DataView(prefix.buffer, prefix.byteOffset, prefix.byteLength);
  const [length, start] = version === 1 ? [view.getUint16(8, true), 10] : [view.getUint32(8, true), 12];
  if (length > MAX_TEXT) throw invalid(`its header claims ${length} bytes`, where);
  return start + length;
}

/** The only form that NumPy writes: a Python dict of three keys. */
const TEXT =
  /^\{\s*'descr':\s*'([^']*)',\s*'fortran_order':\s*(True|False),\s*'shape':\s*\(([\d\s,]*)\),?\s*\}\s*$/;

/**
 * Parses a whole header.
 *
 * @throws {FormatError} `npy_invalid`, `unsupported_dtype`, `pickle_refused`
 */
export function parseNpyHeader(bytes: Uint8Array, where: string): NpyHeader {
  const length = npyHeaderLength(bytes.subarray(0, LONGEST_PREFIX), where);
  const start = bytes[6] === 1 ? 10 : 12;
  const text = new TextDecoder("latin1").decode(bytes.subarray(start, length));
  const match = TEXT.exec(text);
  if (!match) throw invalid(`its header is ${JSON.stringify(text.slice(0, 80))}`, where);
  const [, descr, order, dimensions] = match as unknown as [string, string, string, string];
  const parts = dimensions.replace(/,\s*$/, "").split(",").map((part) => part.trim());
  const shape = parts.join("") === "" ? [] : parts.map((part) => /^\d+$/.test(part) ? Number(part) : NaN);
  if (!shape.every(Number.isSafeInteger)) throw invalid(`its shape is (${dimensions.slice(0, 80)})`, where);
  return { dtype: dtypeOf(descr, where), shape, isFortran: order === "True", length };
}

function dtypeOf(descr: string, where: string): StoredDType {
  const dtype = Object.hasOwn(DTYPES, descr) ? DTYPES[descr] : undefined;
  if (dtype) return dtype;
  const isPickle = descr.includes("O");
  throw new FormatError(
    isPickle ? "pickle_refused" : "unsupported_dtype",
    isPickle
      ? "the array holds Python objects, which only running a program can read"
      : `the array is of NumPy's type ${
        JSON.stringify(descr)
      }; little-endian floats or integers were expected`,
    'Save it as numbers: array.astype("<f4").',
    where,
  );
}

function invalid(message: string, where: string): FormatError {
  return new FormatError(
    "npy_invalid",
    `the array is damaged: ${message}`,
    "Write the file again with numpy.savez.",
    where,
  );
}
