/** Bits per element of every safetensors dtype. */
const BITS = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

/** A dtype as safetensors names it. */
export type StoredDType = keyof typeof BITS;

export const STORED_DTYPES = Object.keys(BITS) as readonly StoredDType[];

export function isStoredDType(name: string): name is StoredDType {
  return Object.hasOwn(BITS, name);
}

/** Bits of one element: 4, 6, 8, 16, 32 or 64. */
export function bitsOf(dtype: StoredDType): number {
  return BITS[dtype];
}
