/**
 * Loops over contiguous runs of a row-major matrix: the inner loops of everything in this folder. Several accumulators
 * hide the latency of floating-point additions, which a single running sum would expose.
 */

/** Σ x[i]·y[i] over `length` elements that start at the two offsets. */
export function dot(
  x: Float64Array,
  xOffset: number,
  y: Float64Array,
  yOffset: number,
  length: number,
): number {
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  const end = length - 3;
  let i = 0;
  for (; i < end; i += 4) {
    s0 += x[xOffset + i]! * y[yOffset + i]!;
    s1 += x[xOffset + i + 1]! * y[yOffset + i + 1]!;
    s2 += x[xOffset + i + 2]! * y[yOffset + i + 2]!;
    s3 += x[xOffset + i + 3]! * y[yOffset + i + 3]!;
  }
  for (; i < length; i++) s0 += x[xOffset + i]! * y[yOffset + i]!;
  return (s0 + s1) + (s2 + s3);
}

/** y[i] += factor · x[i] over `length` elements that start at the two offsets. */
export function addScaled(
  y: Float64Array,
  yOffset: number,
  factor: number,
  x: Float64Array,
  xOffset: number,
  length: number,
): void {
  for (let i = 0; i < length; i++) y[yOffset + i]! += factor * x[xOffset + i]!;
}

/** Replaces the runs x and y by c·x + s·y and c·y − s·x. */
export function rotate(
  matrix: Float64Array,
  xOffset: number,
  yOffset: number,
  length: number,
  c: number,
  s: number,
): void {
  for (let i = 0; i < length; i++) {
    const x = matrix[xOffset + i]!;
    const y = matrix[yOffset + i]!;
    matrix[xOffset + i] = c * x + s * y;
    matrix[yOffset + i] = c * y - s * x;
  }
}

/** Exchanges rows and columns of a `rows` × `columns` matrix. */
export function transpose(matrix: Float64Array, rows: number, columns: number): Float64Array<ArrayBuffer> {
  const out = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) out[j * rows + i] = matrix[i * columns + j]!;
  }
  return out;
}

/** The largest magnitude among the elements; 0 for none, NaN if any is NaN. */
export function maxAbs(x: Float64Array): number {
  let largest = 0;
  for (let i = 0; i < x.length; i++) {
    const magnitude = Math.abs(x[i]!);
    if (magnitude > largest) largest = magnitude;
    else if (magnitude !== magnitude) return NaN;
  }
  return largest;
}
