import { type Device, gemm } from "@lora-loom/tensor";
import { columnsAsRows, row, type Rows, zeroRows } from "./rows.ts";

/** A dense matrix D of the size of a module, known by its products with a few vectors. */
export interface LargeMatrix extends Disposable {
  readonly rows: number;
  readonly columns: number;
  /** ‖Dᵀu − σv‖ relative to σ₁ below which it cannot be told from the rounding of the products, with a margin. */
  readonly residual: number;
  /** D v of every row v. */
  images(vectors: Rows): Promise<Rows>;
  /** Dᵀ u of every row u. */
  preimages(vectors: Rows): Promise<Rows>;
}

/** Entries of a large matrix: float32 for a GPU, which computes in that. */
export type MatrixStorage = Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;

/** Zeros in the type that {@linkcode largeMatrix} needs on this device. */
export function matrixStorage(device: Device, length: number): MatrixStorage {
  return device.info.backend === "cpu" ? new Float64Array(length) : new Float32Array(length);
}

/**
 * Products with a matrix, computed where the device is.
 *
 * @param entries row-major; on the CPU it is kept, not copied
 */
export function largeMatrix(
  device: Device,
  entries: MatrixStorage,
  rows: number,
  columns: number,
): LargeMatrix {
  return entries instanceof Float64Array
    ? hostMatrix(entries, rows, columns)
    : deviceMatrix(device, entries, rows, columns);
}

function deviceMatrix(device: Device, entries: Float32Array, rows: number, columns: number): LargeMatrix {
  const matrix = device.upload(entries, [rows, columns]);
  return {
    rows,
    columns,
    residual: 1e-6,
    async images(vectors) {
      using operand = device.upload(vectors.data, [vectors.count, columns]);
      using product = gemm(matrix, operand, { transposeB: true });
      return columnsAsRows(await device.download(product), rows, vectors.count);
    },
    async preimages(vectors) {
      using operand = device.upload(vectors.data, [vectors.count, rows]);
      using product = gemm(operand, matrix);
      return {
        count: vectors.count,
        length: columns,
        data: Float64Array.from(await device.download(product)),
      };
    },
    [Symbol.dispose]: () => matrix.dispose(),
  };
}

/** One pass over the matrix serves all vectors: each of its rows is used for all of them while it is in the cache. */
function hostMatrix(entries: Float64Array<ArrayBuffer>, rows: number, columns: number): LargeMatrix {
  const entryRow = (i: number) => entries.subarray(i * columns, (i + 1) * columns);
  return {
    rows,
    columns,
    residual: 1e-9,
    images(vectors) {
      const out = zeroRows(vectors.count, rows);
      for (let i = 0; i < rows; i++) dotAll(entryRow(i), vectors, out, i);
      return Promise.resolve(out);
    },
    preimages(vectors) {
      const out = zeroRows(vectors.count, columns);
      for (let i = 0; i < rows; i += ROWS_AT_ONCE) {
        if (i + ROWS_AT_ONCE <= rows) addFourToAll(out, vectors, i, entries.subarray(i * columns));
        else for (let last = i; last < rows; last++) addToAll(out, vectors, last, entryRow(last));
      }
      return Promise.resolve(out);
    },
    [Symbol.dispose]: () => {},
  };
}

/** out[v, position] = ⟨x, v⟩ for all vectors, four of them at a time. */
function dotAll(x: Float64Array, vectors: Rows, out: Rows, position: number): void {
  const { count, length, data } = vectors;
  const last = count - 1;
  for (let v = 0; v < count; v += 4) {
    // Past the end the last vector stands in; its result is written again.
    const o0 = v * length, o1 = Math.min(v + 1, last) * length;
    const o2 = Math.min(v + 2, last) * length, o3 = Math.min(v + 3, last) * length;
    let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (let j = 0; j < length; j++) {
      const value = x[j]!;
      s0 += value * data[o0 + j]!;
      s1 += value * data[o1 + j]!;
      s2 += value * data[o2 + j]!;
      s3 += value * data[o3 + j]!;
    }
    const at = (vector: number) => Math.min(vector, last) * out.length + position;
    out.data[at(v + 3)] = s3;
    out.data[at(v + 2)] = s2;
    out.data[at(v + 1)] = s1;
    out.data[at(v)] = s0;
  }
}

/** Rows of the matrix that are added together, so that the result is read and written once for all of them. */
const ROWS_AT_ONCE = 4;

/** out[v] += Σ vectors[v, position + r] · (row r of `block`) for all vectors, in this order, r < 4. */
function addFourToAll(out: Rows, vectors: Rows, position: number, block: Float64Array): void {
  const { length } = out;
  for (let v = 0; v < vectors.count; v++) {
    const at = v * vectors.length + position;
    const f0 = vectors.data[at]!, f1 = vectors.data[at + 1]!;
    const f2 = vectors.data[at + 2]!, f3 = vectors.data[at + 3]!;
    const target = row(out, v);
    for (let j = 0; j < length; j++) {
      target[j] = target[j]! + f0 * block[j]! + f1 * block[length + j]! + f2 * block[2 * length + j]! +
        f3 * block[3 * length + j]!;
    }
  }
}

/** out[v] += vectors[v, position] · x for all vectors. */
function addToAll(out: Rows, vectors: Rows, position: number, x: Float64Array): void {
  for (let v = 0; v < vectors.count; v++) {
    const factor = vectors.data[v * vectors.length + position]!;
    const target = row(out, v);
    for (let j = 0; j < x.length; j++) target[j]! += factor * x[j]!;
  }
}
