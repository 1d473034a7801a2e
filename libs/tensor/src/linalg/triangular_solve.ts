import { TensorError } from "../errors.ts";
import { checkSize } from "./check.ts";

/** Which triangle of the matrix counts, and whether it is transposed. */
export interface TriangularOptions {
  /** Read the upper triangle instead of the lower. Default false. */
  readonly upper?: boolean;
  /** Solve with the transpose of that triangle. Default false. */
  readonly transpose?: boolean;
}

/** Right-hand sides solved together: their part of X stays in the cache. */
const PANEL = 64;

/** T as an array with strides, so that a transpose costs nothing. */
interface Strided {
  readonly data: Float64Array;
  readonly row: number;
  readonly column: number;
}

/** Columns `from` … `from + width` of X, which are solved in place, and what they are solved with. */
interface Panel {
  readonly t: Strided;
  readonly n: number;
  /** `[n, columns]`; the right-hand sides at first. */
  readonly x: Float64Array;
  readonly columns: number;
  readonly from: number;
  readonly width: number;
}

/**
 * Solves T X = B for a triangular `n` × `n` matrix T; `rhs` and the result are `n` × `columns`. The other triangle of the
 * matrix is not read.
 *
 * @throws {TensorError} `singular_matrix` for a zero on the diagonal, `shape_mismatch`
 */
export function triangularSolve(
  matrix: Float64Array,
  n: number,
  rhs: Float64Array,
  columns: number,
  { upper = false, transpose = false }: TriangularOptions = {},
): Float64Array<ArrayBuffer> {
  checkSize(matrix, n, n, "triangularSolve");
  checkSize(rhs, n, columns, "triangularSolve");
  checkDiagonal(matrix, n);
  const t = transpose ? { data: matrix, row: 1, column: n } : { data: matrix, row: n, column: 1 };
  const forward = upper === transpose;
  const x = Float64Array.from(rhs);
  for (let from = 0; from < columns; from += PANEL) {
    const panel = { t, n, x, columns, from, width: Math.min(PANEL, columns - from) };
    if (forward) substituteForward(panel);
    else substituteBackward(panel);
  }
  return x;
}

function checkDiagonal(matrix: Float64Array, n: number): void {
  for (let i = 0; i < n; i++) {
    if (matrix[i * n + i] !== 0) continue;
    throw new TensorError(
      "singular_matrix",
      `diagonal element ${i} is zero`,
      "regularise the matrix or drop the dependent column",
      "triangularSolve",
    );
  }
}

function substituteForward(panel: Panel): void {
  const { n } = panel;
  for (let i = 0; i < n; i += 2) {
    subtractKnown(panel, i, 0, i);
    divideRow(panel, i);
    if (i + 1 === n) return;
    subtractRow(panel, i + 1, i);
    divideRow(panel, i + 1);
  }
}

function substituteBackward(panel: Panel): void {
  const { n } = panel;
  let i = n - 1;
  if (n % 2 === 1) {
    divideRow(panel, i);
    i--;
  }
  for (; i > 0; i -= 2) {
    subtractKnown(panel, i - 1, i + 1, n);
    divideRow(panel, i);
    subtractRow(panel, i - 1, i);
    divideRow(panel, i - 1);
  }
}

/**
 * Subtracts from rows `target` and `target` + 1 of X what the solved rows begin…end contribute. Two targets and four sources at a
 * time make six loads and two stores serve sixteen operations.
 */
function subtractKnown(panel: Panel, target: number, begin: number, end: number): void {
  const { t: { data, row, column }, n, x, columns, from, width } = panel;
  if (target + 1 === n) {
    for (let k = begin; k < end; k++) subtractRow(panel, target, k);
    return;
  }
  const out0 = target * columns + from, out1 = out0 + columns;
  let k = begin;
  for (; k + 3 < end; k += 4) {
    const t0 = target * row + k * column, t1 = t0 + row;
    const a0 = data[t0]!, a1 = data[t0 + column]!, a2 = data[t0 + 2 * column]!, a3 = data[t0 + 3 * column]!;
    const b0 = data[t1]!, b1 = data[t1 + column]!, b2 = data[t1 + 2 * column]!, b3 = data[t1 + 3 * column]!;
    const x0 = k * columns + from, x1 = x0 + columns, x2 = x1 + columns, x3 = x2 + columns;
    for (let j = 0; j < width; j++) {
      const y0 = x[x0 + j]!, y1 = x[x1 + j]!, y2 = x[x2 + j]!, y3 = x[x3 + j]!;
      x[out0 + j]! -= (a0 * y0 + a1 * y1) + (a2 * y2 + a3 * y3);
      x[out1 + j]! -= (b0 * y0 + b1 * y1) + (b2 * y2 + b3 * y3);
    }
  }
  for (; k < end; k++) {
    subtractRow(panel, target, k);
    subtractRow(panel, target + 1, k);
  }
}

/** X[target] −= T[target, source] · X[source], within the panel. */
function subtractRow({ t, x, columns, from, width }: Panel, target: number, source: number): void {
  const factor = t.data[target * t.row + source * t.column]!;
  const out = target * columns + from, known = source * columns + from;
  for (let j = 0; j < width; j++) x[out + j]! -= factor * x[known + j]!;
}

function divideRow({ t, x, columns, from, width }: Panel, i: number): void {
  const pivot = t.data[i * (t.row + t.column)]!;
  const out = i * columns + from;
  for (let j = 0; j < width; j++) x[out + j]! /= pivot;
}
