import { TensorError } from "../errors.ts";

/** Throws `shape_mismatch` unless `matrix` holds `rows` × `columns` elements. */
export function checkSize(matrix: Float64Array, rows: number, columns: number, where: string): void {
  if (matrix.length === rows * columns) return;
  throw new TensorError(
    "shape_mismatch",
    `${where} got ${matrix.length} elements for a ${rows} × ${columns} matrix`,
    "pass the matrix row-major with its own sizes",
    where,
  );
}

/** Throws `not_finite` unless `largest`, the largest magnitude of a matrix, is finite. */
export function checkFinite(largest: number, where: string): void {
  if (Number.isFinite(largest)) return;
  throw new TensorError(
    "not_finite",
    `${where} got a matrix with infinite or NaN elements`,
    "look for overflow (float16 data?) in what the matrix was computed from",
    where,
  );
}

/** Throws `no_convergence`: the iteration of `where` exceeded its limit, which rounding alone cannot cause. */
export function notConverged(where: string): never {
  throw new TensorError("no_convergence", `${where} did not converge`, "report the matrix as a bug", where);
}
