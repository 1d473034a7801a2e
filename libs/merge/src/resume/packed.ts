import { fromExactJson, toExactJson } from "./exact_json.ts";

/** Numbers as a device gives them back: as exact as it holds them. */
export type HostArray = Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;

/** A tensor in host memory. */
export interface HostTensor {
  readonly shape: readonly number[];
  readonly values: HostArray;
}

/** A value that JSON can hold, and tensors beside it. */
export interface Packed {
  readonly value: unknown;
  readonly tensors: readonly HostTensor[];
}

interface Header {
  readonly value: unknown;
  readonly tensors: readonly { readonly shape: readonly number[]; readonly type: "f32" | "f64" }[];
}

/** Bytes before the header: its length. */
const PREFIX = 8;

/** Lays a value and tensors out one after the other: the header's length, the header, the tensors. */
export function pack({ value, tensors }: Packed): Uint8Array<ArrayBuffer>[] {
  const header: Header = {
    value,
    tensors: tensors.map(({ shape, values }) => ({
      shape,
      type: values instanceof Float64Array ? "f64" : "f32",
    })),
  };
  const text = new TextEncoder().encode(toExactJson(header));
  const prefix = new Uint8Array(PREFIX);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(text.length), true);
  const parts = tensors.map(({ values }) =>
    new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
  );
  return [prefix, text, ...parts];
}

/**
 * What {@linkcode pack} was given.
 *
 * @throws where the bytes are none of its own
 */
export function unpack(bytes: Uint8Array<ArrayBuffer>): Packed {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = fromExactJson(
    new TextDecoder().decode(bytes.subarray(PREFIX, PREFIX + length)),
  ) as Header;
  let start = bytes.byteOffset + PREFIX + length;
  const tensors = header.tensors.map(({ shape, type }) => {
    const ArrayType = type === "f64" ? Float64Array : Float32Array;
    const count = shape.reduce((product, size) => product * size, 1);
    const end = start + count * ArrayType.BYTES_PER_ELEMENT;
    // A copy, because the elements need not start where an array of their type may.
    const values: HostArray = new ArrayType(bytes.buffer.slice(start, end), 0, count);
    start = end;
    return { shape, values };
  });
  return { value: header.value, tensors };
}
