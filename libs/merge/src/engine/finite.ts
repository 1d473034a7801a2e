/** Float types whose raw bytes can be checked without decoding: the bits that are all ones in Inf and NaN. */
const EXPONENT_MASKS = { f32: 0x7f800000, f16: 0x7c00, bf16: 0x7f80 } as const;

/** A float type that files store and devices take as it is. */
export type StoredFloat = keyof typeof EXPONENT_MASKS;

/** Index of the first NaN or infinity in raw little-endian elements, or −1. */
export function firstNonFinite(bytes: Uint8Array, dtype: StoredFloat): number {
  const mask = EXPONENT_MASKS[dtype];
  const words = dtype === "f32" ? aligned(bytes, Uint32Array) : aligned(bytes, Uint16Array);
  // A count without branches first: it is several times faster, and nearly always zero.
  let count = 0;
  for (let i = 0; i < words.length; i++) count += (words[i]! & mask) === mask ? 1 : 0;
  if (count === 0) return -1;
  return words.findIndex((word) => (word & mask) === mask);
}

function aligned<T extends Uint32Array | Uint16Array>(
  bytes: Uint8Array,
  type: {
    new (buffer: ArrayBufferLike, offset: number, length: number): T;
    readonly BYTES_PER_ELEMENT: number;
  },
): T {
  const size = type.BYTES_PER_ELEMENT;
  const source = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  return new type(source.buffer, source.byteOffset, Math.floor(source.byteLength / size));
}
