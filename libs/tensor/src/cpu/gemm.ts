/**
 * C = alpha · op(A) op(B) + beta · C in float64, row-major, op being the transpose where asked.
 *
 * @param m rows of op(A) and C
 * @param n columns of op(B) and C
 * @param k columns of op(A), rows of op(B)
 */
export function gemmFloat64(
  a: Float64Array,
  b: Float64Array,
  c: Float64Array,
  { m, n, k, transposeA, transposeB, alpha, beta }: {
    m: number;
    n: number;
    k: number;
    transposeA: boolean;
    transposeB: boolean;
    alpha: number;
    beta: number;
  },
): void {
  // Rows of B are walked in the inner loop, so both operands are brought into that form first.
  const left = transposeA ? transposed(a, k, m) : a;
  const right = transposeB ? transposed(b, n, k) : b;
  const row = new Float64Array(n);
  for (let i = 0; i < m; i++) {
    row.fill(0);
    for (let p = 0; p < k; p++) {
      const x = left[i * k + p]!;
      if (x === 0) continue;
      const offset = p * n;
      for (let j = 0; j < n; j++) row[j]! += x * right[offset + j]!;
    }
    for (let j = 0; j < n; j++) c[i * n + j] = alpha * row[j]! + (beta === 0 ? 0 : beta * c[i * n + j]!);
  }
}

function transposed(x: Float64Array, rows: number, columns: number): Float64Array {
  const out = new Float64Array(x.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) out[j * rows + i] = x[i * columns + j]!;
  }
  return out;
}
