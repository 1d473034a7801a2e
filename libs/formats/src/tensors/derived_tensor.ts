import { widen } from "../numbers/widen.ts";
import { bitsOf, type StoredDType } from "../safetensors/dtypes.ts";
import { byteLengthOf } from "../safetensors/extent.ts";
import { rowRange } from "./file_tensor.ts";
import type { StoredTensor } from "./tensor_file.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** A tensor that is made of others each time it is read, so that it takes no memory before. */
class DerivedTensor implements StoredTensor {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  readonly byteLength: number;
  readonly #make: () => Promise<Bytes>;

  constructor(name: string, dtype: StoredDType, shape: readonly number[], make: () => Promise<Bytes>) {
    this.name = name;
    this.dtype = dtype;
    this.shape = shape;
    this.byteLength = byteLengthOf(dtype, shape, name);
    this.#make = make;
  }

  read(): Promise<Bytes> {
    return this.#make();
  }

  async readFloat32(): Promise<Float32Array<ArrayBuffer>> {
    return widen(this.dtype, await this.read(), this.name);
  }

  async readRows(start: number, end: number): Promise<Bytes> {
    const { from, to } = rowRange(this, start, end, this.name);
    return (await this.read()).slice(from, to);
  }
}

/** A tensor in float32 whose values are computed from others when it is read. */
export function computedTensor(
  name: string,
  shape: readonly number[],
  compute: () => Promise<Float32Array<ArrayBuffer>>,
): StoredTensor {
  return new DerivedTensor(name, "F32", shape, async () => {
    const values = await compute();
    return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  });
}

/** The transpose of a matrix, in its own dtype. */
export function transposedTensor(tensor: StoredTensor): StoredTensor {
  const [rows, columns] = matrixShape(tensor);
  return new DerivedTensor(
    tensor.name,
    tensor.dtype,
    [columns, rows],
    async () => transposeBytes(await tensor.read(), rows, columns, bitsOf(tensor.dtype) / 8),
  );
}

/** The rows of a tensor in another order, in its own dtype: row `i` of the result is row `order(i)`. */
export function reorderedRows(
  tensor: StoredTensor,
  order: (row: number) => number,
  count = tensor.shape[0]!,
): StoredTensor {
  const rowBytes = tensor.byteLength / tensor.shape[0]!;
  return new DerivedTensor(tensor.name, tensor.dtype, [count, ...tensor.shape.slice(1)], async () => {
    const bytes = await tensor.read();
    const ordered = new Uint8Array(count * rowBytes);
    for (let row = 0; row < count; row++) {
      const from = order(row) * rowBytes;
      ordered.set(bytes.subarray(from, from + rowBytes), row * rowBytes);
    }
    return ordered;
  });
}

/** Rows `[start, end)` of a tensor as a tensor of its own. */
export function rowsOfTensor(tensor: StoredTensor, start: number, end: number): StoredTensor {
  return new DerivedTensor(
    tensor.name,
    tensor.dtype,
    [end - start, ...tensor.shape.slice(1)],
    () => tensor.readRows(start, end),
  );
}

function matrixShape({ shape }: StoredTensor): [rows: number, columns: number] {
  return [shape[0]!, shape.slice(1).reduce((product, dimension) => product * dimension, 1)];
}

/** Unsigned integers of an element's width: elements are moved, never interpreted. */
const ELEMENTS = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array, 8: BigUint64Array } as const;

function transposeBytes(bytes: Bytes, rows: number, columns: number, width: number): Bytes {
  const type = ELEMENTS[width as keyof typeof ELEMENTS];
  const from = new type(bytes.buffer, bytes.byteOffset, rows * columns);
  const to = new type(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) to[column * rows + row] = from[row * columns + column]!;
  }
  return new Uint8Array(to.buffer);
}

/** Some rows of a matrix, in the order given, in its own dtype. */
export function selectedRows(tensor: StoredTensor, rows: readonly number[]): StoredTensor {
  return reorderedRows(tensor, (row) => rows[row]!, rows.length);
}

/** Some columns of a matrix, in the order given, in its own dtype; further dimensions of size 1 are left out. */
export function selectedColumns(tensor: StoredTensor, columns: readonly number[]): StoredTensor {
  return transposedTensor(selectedRows(transposedTensor(tensor), columns));
}
