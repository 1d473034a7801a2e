import { checkSize } from "./check.ts";
import { TensorError } from "../errors.ts";
import { reflectColumns, reflectRowsFromRight, takeColumnReflector } from "./reflectors.ts";

/** A = QR with orthonormal columns in `q` (m × n) and upper triangular `r` (n × n) whose diagonal is not negative. */
export interface ThinQr {
  readonly q: Float64Array<ArrayBuffer>;
  readonly r: Float64Array<ArrayBuffer>;
}

/**
 * Thin Householder QR of an `m` × `n` matrix with m ≥ n. Backward stable also for rank-deficient matrices, whose `r` then
 * has (nearly) zero diagonal elements.
 *
 * @throws {TensorError} `shape_mismatch`, also for m < n
 */
export function qr(matrix: Float64Array, m: number, n: number): ThinQr {
  checkSize(matrix, m, n, "qr");
  if (m < n) {
    throw new TensorError(
      "shape_mismatch",
      `qr got a ${m} × ${n} matrix, wider than tall`,
      "pass its transpose",
      "qr",
    );
  }
  const a = Float64Array.from(matrix);
  const reflectors = new Float64Array(n * m);
  const scratch = new Float64Array(n);
  for (let k = 0; k < n; k++) {
    a[k * n + k] = takeColumnReflector(a, m, n, k, reflectors, k * m);
    reflectColumns(a, m, n, k, k + 1, reflectors, k * m, scratch);
  }
  const qTransposed = new Float64Array(n * m);
  for (let i = 0; i < n; i++) qTransposed[i * m + i] = 1;
  for (let k = n - 1; k >= 0; k--) reflectRowsFromRight(qTransposed, m, k, n, k, reflectors, k * m);

  const q = new Float64Array(m * n);
  const r = new Float64Array(n * n);
  for (let k = 0; k < n; k++) {
    const sign = a[k * n + k]! < 0 ? -1 : 1;
    for (let i = 0; i < m; i++) q[i * n + k] = sign * qTransposed[k * m + i]!;
    for (let j = k; j < n; j++) r[k * n + j] = sign * a[k * n + j]!;
  }
  return { q, r };
}
