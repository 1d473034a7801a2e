import { encodeElements } from "../cpu/encode.ts";
import { TensorError } from "../errors.ts";
import { BYTES_PER_ELEMENT, type DType } from "../tensor.ts";

/**
 * The bytes of `dtype` elements under any view as a `Uint8Array` over a plain `ArrayBuffer`, which is the only thing Dawn
 * may be given: a `Float16Array` or a view of shared memory would kill the process. Copies only where it must. The length
 * is a multiple of four; 16-bit data of odd length get two zero bytes.
 */
export function uploadBytes(view: ArrayBufferView, dtype: DType): Uint8Array<ArrayBuffer> {
  if (view instanceof Float64Array && dtype !== "u32") return uploadBytes(encodeElements(view, dtype), dtype);
  const { buffer, byteOffset, byteLength } = view;
  const padded = Math.ceil(byteLength / 4) * 4;
  const plain = buffer instanceof ArrayBuffer && !buffer.resizable;
  if (plain && padded === byteLength) return new Uint8Array(buffer, byteOffset, byteLength);
  const copy = new Uint8Array(padded);
  copy.set(new Uint8Array(buffer, byteOffset, byteLength));
  return copy;
}

/** Bytes that a tensor's elements take on a device, rounded up to whole 32-bit words. */
export function storedBytes(elements: number, dtype: DType): number {
  return Math.ceil(elements * BYTES_PER_ELEMENT[dtype] / 4) * 4;
}

/** Bytes that `upload` expects of the host: a `Float64Array` may stand for any float type. */
export function hostBytes(view: ArrayBufferView, elements: number, dtype: DType): number {
  return elements * (view instanceof Float64Array && dtype !== "u32" ? 8 : BYTES_PER_ELEMENT[dtype]);
}

/** Throws unless an array that a download is to fill has the right size. */
export function checkDestination(into: Uint8Array | undefined, bytes: number): void {
  if (!into || into.length === bytes) return;
  throw new TensorError(
    "shape_mismatch",
    `a tensor of ${bytes} bytes cannot be read into an array of ${into.length}`,
    "pass an array of exactly the tensor's size, or none",
    "downloadBytes",
  );
}
