import { checkFinite, checkSize, notConverged } from "./check.ts";
import { addScaled, dot, maxAbs, rotate } from "./rows.ts";

/** Eigenvalues in descending order; row i of `vectors` (n × n) is the unit eigenvector of `values[i]`. */
export interface SymmetricEigen {
  readonly values: Float64Array<ArrayBuffer>;
  readonly vectors: Float64Array<ArrayBuffer>;
}

/**
 * All eigenpairs of a symmetric `n` × `n` matrix, of which only the lower triangle is read: Householder
 * tridiagonalisation, then implicit QL (Golub & Van Loan, Matrix Computations, §8.3). Eigenvalues are accurate to a few
 * ε·‖A‖ and vectors orthonormal to a few ε. About 8n³ operations.
 *
 * @throws {TensorError} `shape_mismatch`, `not_finite`
 */
export function symmetricEigen(matrix: Float64Array, n: number): SymmetricEigen {
  const { diagonal, offDiagonal, reflectors, scale } = tridiagonalise(matrix, n);
  const vectors = accumulate(reflectors, n);
  implicitQl(diagonal, offDiagonal, n, vectors);
  return sortDescending(diagonal, vectors, n, scale);
}

/** The eigenvalues of {@linkcode symmetricEigen} alone, in descending order: about 4n³/3 operations. */
export function symmetricEigenvalues(matrix: Float64Array, n: number): Float64Array<ArrayBuffer> {
  const { diagonal, offDiagonal, scale } = tridiagonalise(matrix, n);
  implicitQl(diagonal, offDiagonal, n);
  return diagonal.sort().reverse().map((value) => value * scale);
}

/**
 * Reduces the matrix to tridiagonal form from its last row upwards. Row i of `reflectors` keeps in its first i elements
 * the Householder vector u of step i, scaled to uᵀu = 2 (or zero where there was nothing to do), so H = I − uuᵀ.
 * The matrix is divided by `scale` first, so that squares neither overflow nor vanish.
 */
function tridiagonalise(matrix: Float64Array, n: number) {
  checkSize(matrix, n, n, "symmetricEigen");
  const largest = maxAbs(matrix);
  checkFinite(largest, "symmetricEigen");
  const scale = largest || 1;
  const a = Float64Array.from(matrix, (x) => x / scale);
  const diagonal = new Float64Array(n);
  const offDiagonal = new Float64Array(n); // offDiagonal[i] couples i and i + 1
  const q = new Float64Array(n);
  for (let i = n - 1; i > 0; i--) {
    const row = i * n;
    offDiagonal[i - 1] = reflectOntoLast(a, row, i);
    if (i > 1) applyBothSides(a, n, row, i, q);
  }
  for (let i = 0; i < n; i++) diagonal[i] = a[i * n + i]!;
  return { diagonal, offDiagonal, reflectors: a, scale };
}

/** Overwrites the run x of `length` with u, where (I − uuᵀ)x = (0, …, 0, β), and returns β. */
function reflectOntoLast(a: Float64Array, offset: number, length: number): number {
  const last = offset + length - 1;
  const pivot = a[last]!;
  const rest = dot(a, offset, a, offset, length - 1);
  if (rest === 0) {
    a[last] = 0;
    return pivot;
  }
  const norm = Math.sqrt(rest + pivot * pivot);
  const beta = pivot > 0 ? -norm : norm;
  a[last] = pivot - beta;
  // uᵀu = 2·norm·(norm + |pivot|) before scaling.
  const factor = 1 / Math.sqrt(norm * (norm + Math.abs(pivot)));
  for (let k = offset; k <= last; k++) a[k]! *= factor;
  return beta;
}

/** A ← HAH on the leading `size` × `size` block, lower triangle only, with u at `row`. `q` is scratch. */
function applyBothSides(a: Float64Array, n: number, row: number, size: number, q: Float64Array): void {
  for (let j = 0; j < size; j++) {
    const uj = a[row + j]!;
    q[j] = a[j * n + j]! * uj + dot(a, j * n, a, row, j);
    addScaled(q, 0, uj, a, j * n, j);
  }
  const half = dot(q, 0, a, row, size) / 2;
  addScaled(q, 0, -half, a, row, size);
  for (let j = 0; j < size; j++) {
    const uj = a[row + j]!;
    const qj = q[j]!;
    const offset = j * n;
    for (let k = 0; k <= j; k++) a[offset + k]! -= uj * q[k]! + qj * a[row + k]!;
  }
}

/** The product of all reflectors, transposed, so that the QL rotations act on contiguous rows. */
function accumulate(reflectors: Float64Array, n: number): Float64Array<ArrayBuffer> {
  const vectors = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    // Earlier reflectors touched only coordinates below i − 1, so only the leading rows need work.
    for (let j = 0; j < i; j++) {
      const projection = dot(vectors, j * n, reflectors, i * n, i);
      if (projection !== 0) addScaled(vectors, j * n, -projection, reflectors, i * n, i);
    }
    vectors[i * n + i] = 1;
  }
  return vectors;
}

/** Diagonalises a symmetric tridiagonal matrix in place; rotates the rows of `vectors` along, if given. */
function implicitQl(d: Float64Array, e: Float64Array, n: number, vectors?: Float64Array): void {
  let budget = 60 * n;
  for (let first = 0; first < n; first++) {
    for (let last = unreducedEnd(d, e, first, n); last > first; last = unreducedEnd(d, e, first, n)) {
      if (budget-- === 0) notConverged("symmetricEigen");
      qlSweep(d, e, first, last, n, vectors);
    }
  }
}

/** The end of the unreduced block that starts at `first`; the coupling that ends it is set to zero. */
function unreducedEnd(d: Float64Array, e: Float64Array, first: number, n: number): number {
  for (let i = first; i < n - 1; i++) {
    if (
      Math.abs(e[i]!) <= Number.EPSILON * (Math.abs(d[i]!) + Math.abs(d[i + 1]!)) || Math.abs(e[i]!) < 1e-300
    ) {
      e[i] = 0;
      return i;
    }
  }
  return n - 1;
}

/** One implicit QL step with Wilkinson's shift on the block `first`…`last`. */
function qlSweep(
  d: Float64Array,
  e: Float64Array,
  first: number,
  last: number,
  n: number,
  vectors?: Float64Array,
): void {
  const t = (d[first + 1]! - d[first]!) / (2 * e[first]!);
  const root = Math.abs(t) > 1e100 ? Math.abs(t) : Math.sqrt(t * t + 1);
  let g = d[last]! - d[first]! + e[first]! / (t >= 0 ? t + root : t - root);
  let c = 1, s = 1, p = 0;
  for (let i = last - 1; i >= first; i--) {
    const f = s * e[i]!;
    const b = c * e[i]!;
    const r = Math.sqrt(f * f + g * g);
    e[i + 1] = r;
    if (r === 0) {
      // The block splits here: undo the pending shift and let the caller find the two parts.
      d[i + 1]! -= p;
      e[last] = 0;
      return;
    }
    s = f / r;
    c = g / r;
    const shifted = d[i + 1]! - p;
    const h = (d[i]! - shifted) * s + 2 * c * b;
    p = s * h;
    d[i + 1] = shifted + p;
    g = c * h - b;
    if (vectors) rotate(vectors, i * n, (i + 1) * n, n, c, -s);
  }
  d[first]! -= p;
  e[first] = g;
  e[last] = 0;
}

function sortDescending(d: Float64Array, vectors: Float64Array, n: number, scale: number): SymmetricEigen {
  const order = Array.from(d.keys()).sort((i, j) => d[j]! - d[i]! || i - j);
  const sorted = new Float64Array(n * n);
  order.forEach((from, to) => sorted.set(vectors.subarray(from * n, (from + 1) * n), to * n));
  return { values: Float64Array.from(order, (i) => d[i]! * scale), vectors: sorted };
}
