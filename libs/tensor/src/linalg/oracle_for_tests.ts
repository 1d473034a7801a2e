/** Textbook loops for the tests of this folder; they share nothing with what they check. */

/** A · B of an m × k and a k × n matrix. */
export function product(
  a: Float64Array,
  b: Float64Array,
  m: number,
  k: number,
  n: number,
): Float64Array<ArrayBuffer> {
  const c = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let p = 0; p < k; p++) sum += a[i * k + p]! * b[p * n + j]!;
      c[i * n + j] = sum;
    }
  }
  return c;
}

/** Bᵀ, n × m, of an m × n matrix. */
export function flipped(b: Float64Array, m: number, n: number): Float64Array<ArrayBuffer> {
  return Float64Array.from({ length: m * n }, (_, index) => b[(index % m) * n + Math.floor(index / m)]!);
}

export function identity(n: number): Float64Array<ArrayBuffer> {
  return Float64Array.from({ length: n * n }, (_, index) => (index % (n + 1) === 0 ? 1 : 0));
}

/** U · diag(values) · V for U m × r and V r × n. */
export function scaledProduct(
  u: Float64Array,
  values: Float64Array,
  v: Float64Array,
  m: number,
  n: number,
): Float64Array<ArrayBuffer> {
  const r = values.length;
  return product(u.map((x, index) => x * values[index % r]!), v, m, r, n);
}
