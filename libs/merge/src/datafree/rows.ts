/** A few long vectors, as the rows of a row-major float64 matrix in host memory. */
export interface Rows {
  readonly count: number;
  readonly length: number;
  readonly data: Float64Array<ArrayBuffer>;
}

/** Rows of zeros. */
export function zeroRows(count: number, length: number): Rows {
  return { count, length, data: new Float64Array(count * length) };
}

/** Row `index` as a view. */
export function row({ data, length }: Rows, index: number): Float64Array<ArrayBuffer> {
  return data.subarray(index * length, (index + 1) * length);
}

/** Scalar product of two equally long vectors. */
export function dot(x: Float64Array, y: Float64Array): number {
  // Four sums: a single one would wait for each addition.
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  const end = x.length - 3;
  let i = 0;
  for (; i < end; i += 4) {
    s0 += x[i]! * y[i]!;
    s1 += x[i + 1]! * y[i + 1]!;
    s2 += x[i + 2]! * y[i + 2]!;
    s3 += x[i + 3]! * y[i + 3]!;
  }
  for (; i < x.length; i++) s0 += x[i]! * y[i]!;
  return s0 + s1 + (s2 + s3);
}

/** y += factor · x. */
function addTo(y: Float64Array, factor: number, x: Float64Array): void {
  if (factor === 0) return;
  for (let i = 0; i < y.length; i++) y[i]! += factor * x[i]!;
}

/** X Yᵀ, `[x.count, y.count]`. */
export function products(x: Rows, y: Rows): Float64Array<ArrayBuffer> {
  const out = new Float64Array(x.count * y.count);
  for (let i = 0; i < x.count; i++) {
    const left = row(x, i);
    for (let j = 0; j < y.count; j++) out[i * y.count + j] = dot(left, row(y, j));
  }
  return out;
}

/** C X for a `[count, x.count]` matrix C of coefficients. */
export function combine(coefficients: Float64Array, count: number, x: Rows): Rows {
  const out = zeroRows(count, x.length);
  for (let i = 0; i < count; i++) {
    const target = row(out, i);
    for (let j = 0; j < x.count; j++) addTo(target, coefficients[i * x.count + j]!, row(x, j));
  }
  return out;
}

/** The rows of several sets, one set under the other. */
export function stack(sets: readonly Rows[], length: number): Rows {
  const out = zeroRows(sets.reduce((sum, { count }) => sum + count, 0), length);
  let offset = 0;
  for (const { data } of sets) {
    out.data.set(data, offset);
    offset += data.length;
  }
  return out;
}

/** The first `count` rows as a view. */
export function firstRows(x: Rows, count: number): Rows {
  return { count, length: x.length, data: x.data.subarray(0, count * x.length) };
}

/** Rows and columns exchanged: a `[length, count]` row-major matrix. */
export function transposed({ data, count, length }: Rows): Float64Array<ArrayBuffer> {
  const out = new Float64Array(data.length);
  for (let i = 0; i < count; i++) {
    for (let j = 0; j < length; j++) out[j * count + i] = data[i * length + j]!;
  }
  return out;
}

/** The columns of a row-major `[rows, columns]` matrix as rows. */
export function columnsAsRows(matrix: ArrayLike<number>, rows: number, columns: number): Rows {
  const out = zeroRows(columns, rows);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) out.data[j * rows + i] = matrix[i * columns + j]!;
  }
  return out;
}

/** What is left of a vector below this part of its norm is rounding. */
const DEPENDENT = 1e-10;

/**
 * Orthonormal rows that span what `block` adds to the orthonormal rows `basis`: Gram–Schmidt, twice ("twice is enough",
 * Giraud, Langou, Rozložník 2005). Rows that depend on the ones before are left out.
 */
export function orthonormalAddition(block: Rows, basis: Rows): Rows {
  const kept: Float64Array<ArrayBuffer>[] = [];
  for (let i = 0; i < block.count; i++) {
    const vector = row(block, i).slice();
    const before = Math.sqrt(dot(vector, vector));
    for (let pass = 0; pass < 2; pass++) {
      for (let j = 0; j < basis.count; j++) addTo(vector, -dot(vector, row(basis, j)), row(basis, j));
      for (const other of kept) addTo(vector, -dot(vector, other), other);
    }
    const norm = Math.sqrt(dot(vector, vector));
    if (!(norm > DEPENDENT * before)) continue;
    for (let j = 0; j < vector.length; j++) vector[j]! /= norm;
    kept.push(vector);
  }
  const out = zeroRows(kept.length, block.length);
  kept.forEach((vector, i) => row(out, i).set(vector));
  return out;
}
