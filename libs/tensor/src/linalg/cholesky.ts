import { TensorError } from "../errors.ts";
import { checkSize } from "./check.ts";
import { dot } from "./rows.ts";
import { triangularSolve } from "./triangular_solve.ts";

/** Columns that are eliminated together: a panel of so many columns stays in the cache. */
const BLOCK = 64;

/**
 * The lower triangular L with LLᵀ = A for a symmetric positive definite `n` × `n` matrix, of which only the lower triangle
 * is read. Blocked and right-looking: n³/3 operations, nearly all of them in one kernel that works on rows.
 *
 * @throws {TensorError} `not_positive_definite`, naming the pivot that was not positive; `shape_mismatch`
 */
export function cholesky(matrix: Float64Array, n: number): Float64Array<ArrayBuffer> {
  checkSize(matrix, n, n, "cholesky");
  const l = new Float64Array(n * n);
  for (let i = 0; i < n; i++) l.set(matrix.subarray(i * n, i * n + i + 1), i * n);
  for (let start = 0; start < n; start += BLOCK) {
    const end = Math.min(n, start + BLOCK);
    factorPanel(l, n, start, end);
    updateTrailing(l, n, start, end);
  }
  return l;
}

/**
 * Solves A X = B with the factor of {@linkcode cholesky}: `rhs` and the result are `n` × `columns`.
 *
 * @throws {TensorError} `shape_mismatch`
 */
export function choleskySolve(
  lower: Float64Array,
  n: number,
  rhs: Float64Array,
  columns: number,
): Float64Array<ArrayBuffer> {
  const y = triangularSolve(lower, n, rhs, columns);
  return triangularSolve(lower, n, y, columns, { transpose: true });
}

/** Columns start…end of L, for all rows from `start` on; earlier columns have been subtracted already. */
function factorPanel(l: Float64Array, n: number, start: number, end: number): void {
  for (let i = start; i < n; i++) {
    const row = i * n;
    const stop = Math.min(i, end);
    for (let j = start; j < stop; j++) {
      l[row + j] = (l[row + j]! - dot(l, row + start, l, j * n + start, j - start)) / l[j * n + j]!;
    }
    if (i < end) {
      const pivot = l[row + i]! - dot(l, row + start, l, row + start, i - start);
      if (!(pivot > 0)) throw notPositiveDefinite(i, pivot);
      l[row + i] = Math.sqrt(pivot);
    }
  }
}

function notPositiveDefinite(index: number, pivot: number): TensorError {
  return new TensorError(
    "not_positive_definite",
    `pivot ${index} is ${pivot}, expected a positive number`,
    "add a larger multiple of the identity, or use symmetricEigen for a semidefinite matrix",
    "cholesky",
  );
}

/** A[end…n, end…n) −= P Pᵀ, lower triangle, P = L[end…n, start…end). */
function updateTrailing(l: Float64Array, n: number, start: number, end: number): void {
  for (let columnBlock = end; columnBlock < n; columnBlock += BLOCK) {
    const columnEnd = Math.min(n, columnBlock + BLOCK);
    for (let i = columnBlock; i < n; i += 4) {
      // Above the diagonal nothing is needed; a 4 × 2 tile that straddles it writes there, and is cleared below.
      const stop = Math.min(columnEnd, i + 4);
      for (let j = columnBlock; j < stop; j += 2) subtractTile(l, n, i, j, start, end - start);
    }
  }
  clearAboveDiagonal(l, n, end);
}

/** Subtracts the 4 × 2 products of rows i… with rows j…, over `length` columns from `start`. */
function subtractTile(l: Float64Array, n: number, i: number, j: number, start: number, length: number): void {
  if (i + 4 > n || j + 2 > n) {
    subtractEdge(l, n, i, j, start, length);
    return;
  }
  const i0 = i * n + start, i1 = i0 + n, i2 = i1 + n, i3 = i2 + n;
  const j0 = j * n + start, j1 = j0 + n;
  let s00 = 0, s01 = 0, s10 = 0, s11 = 0, s20 = 0, s21 = 0, s30 = 0, s31 = 0;
  for (let k = 0; k < length; k++) {
    const y0 = l[j0 + k]!;
    const y1 = l[j1 + k]!;
    const x0 = l[i0 + k]!;
    s00 += x0 * y0;
    s01 += x0 * y1;
    const x1 = l[i1 + k]!;
    s10 += x1 * y0;
    s11 += x1 * y1;
    const x2 = l[i2 + k]!;
    s20 += x2 * y0;
    s21 += x2 * y1;
    const x3 = l[i3 + k]!;
    s30 += x3 * y0;
    s31 += x3 * y1;
  }
  const out = i * n + j;
  l[out]! -= s00;
  l[out + 1]! -= s01;
  l[out + n]! -= s10;
  l[out + n + 1]! -= s11;
  l[out + 2 * n]! -= s20;
  l[out + 2 * n + 1]! -= s21;
  l[out + 3 * n]! -= s30;
  l[out + 3 * n + 1]! -= s31;
}

function subtractEdge(l: Float64Array, n: number, i: number, j: number, start: number, length: number): void {
  for (let row = i; row < Math.min(n, i + 4); row++) {
    for (let column = j; column < Math.min(n, j + 2); column++) {
      l[row * n + column]! -= dot(l, row * n + start, l, column * n + start, length);
    }
  }
}

function clearAboveDiagonal(l: Float64Array, n: number, from: number): void {
  for (let i = from; i < n; i++) l.fill(0, i * n + i + 1, Math.min(i * n + n, i * n + i + 4));
}
