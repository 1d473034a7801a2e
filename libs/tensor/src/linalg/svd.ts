import { checkFinite, checkSize, notConverged } from "./check.ts";
import { makeReflector, reflectColumns, reflectRowsFromRight, takeColumnReflector } from "./reflectors.ts";
import { maxAbs, rotate, transpose } from "./rows.ts";

/** A = Σᵢ values[i] · leftᵢ rightᵢᵀ, i < r = min(m, n): row i of `left` (r × m) and of `right` (r × n) are unit vectors. */
export interface Svd {
  /** Descending, not negative. */
  readonly values: Float64Array<ArrayBuffer>;
  readonly left: Float64Array<ArrayBuffer>;
  readonly right: Float64Array<ArrayBuffer>;
}

/**
 * Thin singular value decomposition of an `m` × `n` matrix: Householder bidiagonalisation, then implicit-shift QR (Golub
 * & Reinsch 1970). Singular values are accurate to a few ε·σ₁, vectors orthonormal to a few ε, whatever the rank.
 *
 * @throws {TensorError} `shape_mismatch`, `not_finite`
 */
export function svd(matrix: Float64Array, m: number, n: number): Svd {
  checkSize(matrix, m, n, "svd");
  if (m < n) {
    const { values, left, right } = svd(transpose(matrix, m, n), n, m);
    return { values, left: right, right: left };
  }
  const bidiagonal = bidiagonalise(matrix, m, n);
  const left = accumulateLeft(bidiagonal.leftReflectors, m, n);
  const right = accumulateRight(bidiagonal.rightReflectors, n);
  const problem = { d: bidiagonal.d, e: bidiagonal.e, left, right, m, n };
  diagonalise(problem);
  return sortDescending(problem, bidiagonal.scale);
}

/** The singular values of {@linkcode svd} alone, descending. */
export function singularValues(matrix: Float64Array, m: number, n: number): Float64Array<ArrayBuffer> {
  checkSize(matrix, m, n, "singularValues");
  if (m < n) return singularValues(transpose(matrix, m, n), n, m);
  const { d, e, scale } = bidiagonalise(matrix, m, n);
  diagonalise({ d, e, m, n });
  return d.map((value) => Math.abs(value) * scale).sort().reverse();
}

/** A bidiagonal matrix (diagonal d, e[i] at row i, column i + 1) and the singular vectors found so far, as rows. */
interface Bidiagonal {
  readonly d: Float64Array<ArrayBuffer>;
  readonly e: Float64Array<ArrayBuffer>;
  readonly left?: Float64Array<ArrayBuffer>;
  readonly right?: Float64Array<ArrayBuffer>;
  readonly m: number;
  readonly n: number;
}

function bidiagonalise(matrix: Float64Array, m: number, n: number) {
  const largest = maxAbs(matrix);
  checkFinite(largest, "svd");
  const scale = largest || 1;
  const a = Float64Array.from(matrix, (x) => x / scale);
  const d = new Float64Array(n);
  const e = new Float64Array(n);
  const leftReflectors = new Float64Array(n * m);
  const rightReflectors = new Float64Array(n * n);
  const scratch = new Float64Array(n);
  for (let k = 0; k < n; k++) {
    d[k] = takeColumnReflector(a, m, n, k, leftReflectors, k * m);
    if (k === n - 1) break;
    reflectColumns(a, m, n, k, k + 1, leftReflectors, k * m, scratch);
    for (let j = k + 1; j < n; j++) rightReflectors[k * n + j] = a[k * n + j]!;
    e[k] = makeReflector(rightReflectors, k * n + k + 1, n - k - 1);
    reflectRowsFromRight(a, n, k + 1, m, k + 1, rightReflectors, k * n);
  }
  return { d, e, leftReflectors, rightReflectors, scale };
}

function accumulateLeft(reflectors: Float64Array, m: number, n: number): Float64Array<ArrayBuffer> {
  const rows = new Float64Array(n * m);
  for (let i = 0; i < n; i++) rows[i * m + i] = 1;
  for (let k = n - 1; k >= 0; k--) reflectRowsFromRight(rows, m, k, n, k, reflectors, k * m);
  return rows;
}

function accumulateRight(reflectors: Float64Array, n: number): Float64Array<ArrayBuffer> {
  const rows = new Float64Array(n * n);
  for (let i = 0; i < n; i++) rows[i * n + i] = 1;
  for (let k = n - 2; k >= 0; k--) reflectRowsFromRight(rows, n, k + 1, n, k + 1, reflectors, k * n);
  return rows;
}

/** Brings e to zero by rotations from both sides. */
function diagonalise(problem: Bidiagonal): void {
  const { d, e, n } = problem;
  let norm = 0;
  for (let i = 0; i < n; i++) norm = Math.max(norm, Math.abs(d[i]!) + Math.abs(e[i]!));
  const negligible = Number.EPSILON * norm;
  let budget = 60 * n;
  let last = n - 1;
  while (last > 0) {
    const first = unreducedStart(e, last, negligible);
    if (first === last) {
      last--;
      continue;
    }
    if (budget-- === 0) notConverged("svd");
    const zero = zeroDiagonal(d, first, last, negligible);
    if (zero === last) clearColumn(problem, first, last);
    else if (zero >= first) clearRow(problem, zero, last);
    else qrSweep(problem, first, last);
  }
}

/** The start of the unreduced block that ends at `last`; the coupling before it is set to zero. */
function unreducedStart(e: Float64Array, last: number, negligible: number): number {
  for (let i = last - 1; i >= 0; i--) {
    if (Math.abs(e[i]!) <= negligible) {
      e[i] = 0;
      return i + 1;
    }
  }
  return 0;
}

/** Index of a vanishing diagonal element in the block, set to zero; −1 if there is none. */
function zeroDiagonal(d: Float64Array, first: number, last: number, negligible: number): number {
  for (let i = last; i >= first; i--) {
    if (Math.abs(d[i]!) <= negligible) {
      d[i] = 0;
      return i;
    }
  }
  return -1;
}

/** d[row] = 0: rotates e[row] away along its row, which splits the block. */
function clearRow({ d, e, left, m }: Bidiagonal, row: number, last: number): void {
  let bulge = e[row]!;
  e[row] = 0;
  for (let k = row + 1; k <= last && bulge !== 0; k++) {
    const r = Math.hypot(d[k]!, bulge);
    const c = d[k]! / r;
    const s = bulge / r;
    d[k] = r;
    bulge = -s * e[k]!;
    e[k]! *= c;
    if (left) rotate(left, k * m, row * m, m, c, s);
  }
}

/** d[last] = 0: rotates e[last − 1] away up its column, which splits the last column off. */
function clearColumn({ d, e, right, n }: Bidiagonal, first: number, last: number): void {
  let bulge = e[last - 1]!;
  e[last - 1] = 0;
  for (let k = last - 1; k >= first && bulge !== 0; k--) {
    const r = Math.hypot(d[k]!, bulge);
    const c = d[k]! / r;
    const s = bulge / r;
    d[k] = r;
    if (k > first) {
      bulge = -s * e[k - 1]!;
      e[k - 1]! *= c;
    }
    if (right) rotate(right, k * n, last * n, n, c, s);
  }
}

/** One implicit-shift QR step on the block `first`…`last`, chasing the bulge down. */
function qrSweep({ d, e, left, right, m, n }: Bidiagonal, first: number, last: number): void {
  let [f, g] = firstColumn(d, e, first, last);
  for (let k = first; k < last; k++) {
    let r = Math.sqrt(f * f + g * g);
    let c = r === 0 ? 1 : f / r;
    let s = r === 0 ? 0 : g / r;
    if (k > first) e[k - 1] = r;
    f = c * d[k]! + s * e[k]!;
    e[k] = c * e[k]! - s * d[k]!;
    g = s * d[k + 1]!;
    d[k + 1]! *= c;
    if (right) rotate(right, k * n, (k + 1) * n, n, c, s);

    r = Math.sqrt(f * f + g * g);
    c = r === 0 ? 1 : f / r;
    s = r === 0 ? 0 : g / r;
    d[k] = r;
    f = c * e[k]! + s * d[k + 1]!;
    d[k + 1] = c * d[k + 1]! - s * e[k]!;
    if (k < last - 1) {
      g = s * e[k + 1]!;
      e[k + 1]! *= c;
    }
    if (left) rotate(left, k * m, (k + 1) * m, m, c, s);
  }
  e[last - 1] = f;
}

/** Direction of the first column of BᵀB − μI, μ being Wilkinson's shift from the last 2 × 2 block of BᵀB. */
function firstColumn(d: Float64Array, e: Float64Array, first: number, last: number): [number, number] {
  const scale = Math.max(
    Math.abs(d[last]!),
    Math.abs(d[last - 1]!),
    Math.abs(e[last - 1]!),
    Math.abs(d[first]!),
    Math.abs(e[first]!),
  );
  const dLast = d[last]! / scale;
  const dPrevious = d[last - 1]! / scale;
  const ePrevious = e[last - 1]! / scale;
  const eBefore = last - 1 > first ? e[last - 2]! / scale : 0;
  const corner = dLast * dLast + ePrevious * ePrevious;
  const cross = dPrevious * ePrevious;
  const half = (dPrevious * dPrevious + eBefore * eBefore - corner) / 2;
  const root = Math.sqrt(half * half + cross * cross);
  const denominator = half >= 0 ? half + root : half - root;
  const shift = corner - (denominator === 0 ? 0 : (cross * cross) / denominator);
  const dFirst = d[first]! / scale;
  return [dFirst * dFirst - shift, dFirst * (e[first]! / scale)];
}

function sortDescending({ d, left, right, m, n }: Bidiagonal, scale: number): Svd {
  const order = Array.from(d.keys()).sort((i, j) => Math.abs(d[j]!) - Math.abs(d[i]!) || i - j);
  const sortedLeft = new Float64Array(n * m);
  const sortedRight = new Float64Array(n * n);
  order.forEach((from, to) => {
    sortedLeft.set(left!.subarray(from * m, (from + 1) * m), to * m);
    const row = right!.subarray(from * n, (from + 1) * n);
    sortedRight.set(d[from]! < 0 ? row.map((x) => -x) : row, to * n);
  });
  return {
    values: Float64Array.from(order, (i) => Math.abs(d[i]!) * scale),
    left: sortedLeft,
    right: sortedRight,
  };
}
