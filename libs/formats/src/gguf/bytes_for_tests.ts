/** GGUF bytes put together without the writer, for tests. */

export type Field = string | number | bigint | Uint8Array;

const encoder = new TextEncoder();

/** Little-endian bytes: a number as uint32, a bigint as uint64, a text with its length in front. */
export function field(value: Field): Uint8Array {
  if (value instanceof Uint8Array) return value;
  if (typeof value === "bigint") return new Uint8Array(BigUint64Array.of(BigInt.asUintN(64, value)).buffer);
  if (typeof value === "number") return new Uint8Array(Uint32Array.of(value).buffer);
  const bytes = encoder.encode(value);
  return join([BigInt(bytes.length), bytes]);
}

export function join(fields: readonly Field[]): Uint8Array<ArrayBuffer> {
  const parts = fields.map(field);
  const result = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let position = 0;
  for (const part of parts) {
    result.set(part, position);
    position += part.length;
  }
  return result;
}

/** A header value: key, type number, encoded value. */
export const text = (key: string, value: string): Field[] => [key, 8, value];
export const float32 = (key: string, value: number): Field[] => [
  key,
  6,
  new Uint8Array(Float32Array.of(value).buffer),
];
export const uint32 = (key: string, value: number): Field[] => [key, 4, value];

export interface RawGgufTensor {
  readonly name: string;
  /** Row-major, as in the rest of this library. */
  readonly shape: readonly number[];
  readonly values: ArrayLike<number>;
}

/** A description of a tensor in ggml's order of dimensions. */
export function info(
  name: string,
  shape: readonly (number | bigint)[],
  type: number,
  offset: number | bigint,
): Field[] {
  return [name, shape.length, ...[...shape].reverse().map(BigInt), type, BigInt(offset)];
}

/** `GGUF`, version 3, counts, values and descriptions, padded to 32 bytes, then the data. */
export function file(
  values: readonly Field[][],
  infos: readonly Field[][],
  data: Uint8Array = new Uint8Array(0),
  { version = 3, magic = "GGUF" }: { version?: number; magic?: string } = {},
): Uint8Array<ArrayBuffer> {
  const header = join([
    encoder.encode(magic),
    version,
    BigInt(infos.length),
    BigInt(values.length),
    ...values.flat(),
    ...infos.flat(),
  ]);
  return join([header, new Uint8Array((32 - header.length % 32) % 32), data]);
}

/** A file of F32 tensors, each at a multiple of 32. */
export function float32File(
  values: readonly Field[][],
  tensors: readonly RawGgufTensor[],
): Uint8Array<ArrayBuffer> {
  const infos: Field[][] = [];
  const data: Uint8Array[] = [];
  let offset = 0;
  for (const { name, shape, values } of tensors) {
    const bytes = new Uint8Array(Float32Array.from(values).buffer);
    infos.push(info(name, shape, 0, offset));
    const padded = new Uint8Array(Math.ceil(bytes.length / 32) * 32);
    padded.set(bytes);
    data.push(padded);
    offset += padded.length;
  }
  return file(values, infos, join(data));
}
