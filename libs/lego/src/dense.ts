/** A · B of an m × k and a k × n matrix, row-major. Zeros of A cost nothing, so selections and blocks are cheap. */
export function product(
  a: Float64Array,
  b: Float64Array,
  m: number,
  k: number,
  n: number,
): Float64Array<ArrayBuffer> {
  const c = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    const out = i * n;
    for (let p = 0; p < k; p++) {
      const factor = a[i * k + p]!;
      if (factor === 0) continue;
      const row = p * n;
      for (let j = 0; j < n; j++) c[out + j]! += factor * b[row + j]!;
    }
  }
  return c;
}

/** The transpose, columns × rows, of a rows × columns matrix. */
export function transposed(x: Float64Array, rows: number, columns: number): Float64Array<ArrayBuffer> {
  const out = new Float64Array(x.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) out[j * rows + i] = x[i * columns + j]!;
  }
  return out;
}

/** T G Tᵀ, m × m, of an m × n matrix T and a symmetric n × n matrix G. Exactly symmetric. */
export function congruence(
  t: Float64Array,
  g: Float64Array,
  m: number,
  n: number,
): Float64Array<ArrayBuffer> {
  const half = product(t, g, m, n, n);
  const full = product(t, transposed(half, m, n), m, n, m);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < i; j++) {
      full[i * m + j] = full[j * m + i] = (full[i * m + j]! + full[j * m + i]!) / 2;
    }
  }
  return full;
}

/** The rows and columns `indices` of a symmetric n × n matrix. */
export function submatrix(g: Float64Array, n: number, indices: readonly number[]): Float64Array<ArrayBuffer> {
  const size = indices.length;
  const out = new Float64Array(size * size);
  for (let i = 0; i < size; i++) {
    const row = indices[i]! * n;
    for (let j = 0; j < size; j++) out[i * size + j] = g[row + indices[j]!]!;
  }
  return out;
}

/** Σ x[i]. */
export function sum(x: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < x.length; i++) total += x[i]!;
  return total;
}
