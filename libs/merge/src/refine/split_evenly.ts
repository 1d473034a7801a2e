import { qr, svd } from "@lora-loom/tensor";

/** Factors of one delta, ΔW = B·A, in host memory. */
export interface HostDelta {
  readonly rank: number;
  /** `[rank, in]` */
  readonly a: Float64Array<ArrayBuffer>;
  /** `[out, rank]` */
  readonly b: Float64Array<ArrayBuffer>;
}

/** Singular values below this share of the largest are taken for zero. */
const NEGLIGIBLE = 1e-7;

/**
 * The same delta as B' = U √S, A' = √S Vᵀ, so that no factor learns faster than the other. Where the delta has a lower rank than its
 * factors, the spare rows of A' get the mean size of the others and the spare columns of B' are zero: they change nothing, and can be
 * learnt.
 *
 * @param a `[rank, in]`
 * @param b `[out, rank]`
 */
export function splitEvenly(a: ArrayLike<number>, b: ArrayLike<number>, rank: number): HostDelta {
  const columns = a.length / rank, rows = b.length / rank;
  // A rank beyond a side of the matrix leaves nothing to decompose by QR.
  if (rank > rows || rank > columns) return { rank, a: Float64Array.from(a), b: Float64Array.from(b) };
  const left = qr(Float64Array.from(b), rows, rank);
  const right = qr(transposed(a, rank, columns), columns, rank);
  const core = svd(product(left.r, right.r, rank), rank, rank);
  const largest = core.values[0]!;
  const isSpare = (r: number) => !(core.values[r]! > NEGLIGIBLE * largest);
  const kept = core.values.filter((_, r) => !isSpare(r));
  const usual = kept.length === 0 ? 1 : kept.reduce((sum, value) => sum + value, 0) / kept.length;
  const result = { rank, a: new Float64Array(rank * columns), b: new Float64Array(rows * rank) };
  for (let r = 0; r < rank; r++) {
    const size = Math.sqrt(isSpare(r) ? usual : core.values[r]!);
    for (let k = 0; k < rank; k++) {
      const toLeft = isSpare(r) ? 0 : size * core.left[r * rank + k]!,
        toRight = size * core.right[r * rank + k]!;
      for (let o = 0; o < rows; o++) result.b[o * rank + r]! += left.q[o * rank + k]! * toLeft;
      for (let i = 0; i < columns; i++) result.a[r * columns + i]! += right.q[i * rank + k]! * toRight;
    }
  }
  return result;
}

function transposed(matrix: ArrayLike<number>, rows: number, columns: number): Float64Array<ArrayBuffer> {
  const result = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      result[column * rows + row] = matrix[row * columns + column]!;
    }
  }
  return result;
}

/** X Yᵀ of two n × n matrices. */
function product(x: Float64Array, y: Float64Array, n: number): Float64Array<ArrayBuffer> {
  const result = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      for (let k = 0; k < n; k++) result[i * n + j]! += x[i * n + k]! * y[j * n + k]!;
    }
  }
  return result;
}
