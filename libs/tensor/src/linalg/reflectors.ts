/**
 * Householder reflections H = I − uuᵀ with uᵀu = 2 (u = 0: the identity), applied through contiguous rows. Each u is kept
 * contiguous at some offset of an array of reflectors.
 */
import { addScaled, dot } from "./rows.ts";

/** Turns the run x (from `start`, `length` long) into u with Hx = (β, 0, …, 0), and returns β. */
export function makeReflector(x: Float64Array, start: number, length: number): number {
  const pivot = x[start]!;
  const rest = dot(x, start + 1, x, start + 1, length - 1);
  if (rest === 0) {
    x[start] = 0;
    return pivot;
  }
  const norm = Math.sqrt(rest + pivot * pivot);
  const beta = pivot > 0 ? -norm : norm;
  x[start] = pivot - beta;
  const factor = 1 / Math.sqrt(norm * (norm + Math.abs(pivot)));
  for (let i = start; i < start + length; i++) x[i]! *= factor;
  return beta;
}

/**
 * The reflector that clears column `k` below the diagonal of the `m` × `n` matrix `a`, written to
 * `reflectors[offset + k … offset + m)`; returns β, the new diagonal element.
 */
export function takeColumnReflector(
  a: Float64Array,
  m: number,
  n: number,
  k: number,
  reflectors: Float64Array,
  offset: number,
): number {
  for (let i = k; i < m; i++) reflectors[offset + i] = a[i * n + k]!;
  return makeReflector(reflectors, offset + k, m - k);
}

/** a[k…m, from…n) ← H · a[k…m, from…n), with u at `reflectors[offset + k … offset + m)`. */
export function reflectColumns(
  a: Float64Array,
  m: number,
  n: number,
  k: number,
  from: number,
  reflectors: Float64Array,
  offset: number,
  scratch: Float64Array,
): void {
  const width = n - from;
  scratch.fill(0, 0, width);
  for (let i = k; i < m; i++) addScaled(scratch, 0, reflectors[offset + i]!, a, i * n + from, width);
  for (let i = k; i < m; i++) addScaled(a, i * n + from, -reflectors[offset + i]!, scratch, 0, width);
}

/** Rows firstRow…lastRow of `a` (each `n` long): their elements from `k` on are multiplied by H from the right. */
export function reflectRowsFromRight(
  a: Float64Array,
  n: number,
  firstRow: number,
  lastRow: number,
  k: number,
  reflectors: Float64Array,
  offset: number,
): void {
  for (let i = firstRow; i < lastRow; i++) {
    const projection = dot(a, i * n + k, reflectors, offset + k, n - k);
    if (projection !== 0) addScaled(a, i * n + k, -projection, reflectors, offset + k, n - k);
  }
}
