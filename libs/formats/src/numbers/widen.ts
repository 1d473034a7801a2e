import { FormatError } from "../errors.ts";
import type { StoredDType } from "../safetensors/dtypes.ts";

type Bytes = Uint8Array<ArrayBuffer>;
type Widener = (bytes: Bytes) => Float32Array<ArrayBuffer>;

const WIDENERS: Partial<Record<StoredDType, Widener>> = {
  F32: (bytes) => view(bytes, Float32Array),
  F64: (bytes) => new Float32Array(view(bytes, Float64Array)),
  F16: (bytes) => new Float32Array(view(bytes, Float16Array)),
  BF16: widenBFloat16,
  F8_E4M3: byTable({ exponentBits: 4, bias: 7, infinities: false, unsignedZero: false }),
  F8_E5M2: byTable({ exponentBits: 5, bias: 15, infinities: true, unsignedZero: false }),
  F8_E4M3FNUZ: byTable({ exponentBits: 4, bias: 8, infinities: false, unsignedZero: true }),
  F8_E5M2FNUZ: byTable({ exponentBits: 5, bias: 16, infinities: false, unsignedZero: true }),
  BOOL: (bytes) => new Float32Array(bytes),
  U8: (bytes) => new Float32Array(bytes),
  I8: (bytes) => new Float32Array(view(bytes, Int8Array)),
  U16: (bytes) => new Float32Array(view(bytes, Uint16Array)),
  I16: (bytes) => new Float32Array(view(bytes, Int16Array)),
  U32: (bytes) => new Float32Array(view(bytes, Uint32Array)),
  I32: (bytes) => new Float32Array(view(bytes, Int32Array)),
  U64: (bytes) => Float32Array.from(view(bytes, BigUint64Array), Number),
  I64: (bytes) => Float32Array.from(view(bytes, BigInt64Array), Number),
};

/** Whether {@linkcode widen} takes this dtype. */
export function canWiden(dtype: StoredDType): boolean {
  return WIDENERS[dtype] !== undefined;
}

/**
 * Stored bytes as float32: exact for every float of at most 32 bits and integer of at most 16; F64 and wider integers
 * are rounded to nearest even. F32 is a view of `bytes`, which must own its buffer.
 *
 * @throws {FormatError} `unsupported_dtype`
 */
export function widen(dtype: StoredDType, bytes: Bytes, where: string): Float32Array<ArrayBuffer> {
  const widener = WIDENERS[dtype];
  if (widener) return widener(bytes);
  throw new FormatError(
    "unsupported_dtype",
    `values of ${dtype} cannot be read as float32`,
    "Convert the tensor to F32, F16 or BF16.",
    where,
  );
}

type TypedArrayClass<T> = {
  new (buffer: ArrayBuffer, offset: number, length: number): T;
  BYTES_PER_ELEMENT: number;
};

/** safetensors is little-endian, and so is every platform that Deno and Node run on with a GPU. */
function view<T>(bytes: Bytes, type: TypedArrayClass<T>): T {
  return new type(bytes.buffer, bytes.byteOffset, bytes.byteLength / type.BYTES_PER_ELEMENT);
}

function widenBFloat16(bytes: Bytes): Float32Array<ArrayBuffer> {
  const stored = view(bytes, Uint16Array);
  const words = new Uint32Array(stored.length);
  for (let i = 0; i < stored.length; i++) words[i] = stored[i]! << 16;
  return new Float32Array(words.buffer);
}

interface Float8Layout {
  readonly exponentBits: number;
  readonly bias: number;
  /** The highest exponent holds infinities and NaN, as in IEEE 754. */
  readonly infinities: boolean;
  /** The pattern of −0 is the only NaN (the FNUZ formats). */
  readonly unsignedZero: boolean;
}

function byTable(layout: Float8Layout): Widener {
  const table = Float32Array.from({ length: 256 }, (_, code) => decodeFloat8(code, layout));
  return (bytes) => {
    const values = new Float32Array(bytes.length);
    for (let i = 0; i < bytes.length; i++) values[i] = table[bytes[i]!]!;
    return values;
  };
}

function decodeFloat8(code: number, { exponentBits, bias, infinities, unsignedZero }: Float8Layout): number {
  const mantissaBits = 7 - exponentBits;
  const mantissa = code & ((1 << mantissaBits) - 1);
  const exponent = (code >> mantissaBits) & ((1 << exponentBits) - 1);
  const sign = code & 0x80 ? -1 : 1;
  const isHighest = exponent === (1 << exponentBits) - 1;
  if (unsignedZero && code === 0x80) return NaN;
  if (infinities && isHighest) return mantissa === 0 ? sign * Infinity : NaN;
  if (!infinities && !unsignedZero && (code & 0x7f) === 0x7f) return NaN;
  const fraction = mantissa / (1 << mantissaBits);
  return exponent === 0 ? sign * fraction * 2 ** (1 - bias) : sign * (1 + fraction) * 2 ** (exponent - bias);
}
