import { svd } from "@lora-loom/tensor";

/** A small dense matrix in float64, row-major. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float64Array<ArrayBuffer>;
}

/** A matrix of zeros. */
export function zeros(rows: number, columns: number): Matrix {
  return { rows, columns, data: new Float64Array(rows * columns) };
}

/** A matrix with `values` on its diagonal. */
export function diagonal(values: ArrayLike<number>): Matrix {
  const out = zeros(values.length, values.length);
  for (let i = 0; i < values.length; i++) out.data[i * values.length + i] = values[i]!;
  return out;
}

/** X Y. */
export function multiply(x: Matrix, y: Matrix): Matrix {
  const out = zeros(x.rows, y.columns);
  for (let i = 0; i < x.rows; i++) {
    for (let p = 0; p < x.columns; p++) {
      const factor = x.data[i * x.columns + p]!;
      if (factor === 0) continue;
      for (let j = 0; j < y.columns; j++) {
        out.data[i * y.columns + j]! += factor * y.data[p * y.columns + j]!;
      }
    }
  }
  return out;
}

/** Rows and columns exchanged. */
export function transpose({ rows, columns, data }: Matrix): Matrix {
  const out = zeros(columns, rows);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) out.data[j * rows + i] = data[i * columns + j]!;
  }
  return out;
}

/** Σ factors[t] · matrices[t], all of one shape. */
export function weightedSum(matrices: readonly Matrix[], factors: readonly number[]): Matrix {
  const out = zeros(matrices[0]!.rows, matrices[0]!.columns);
  matrices.forEach(({ data }, t) => {
    const factor = factors[t]!;
    for (let i = 0; i < data.length; i++) out.data[i]! += factor * data[i]!;
  });
  return out;
}

/** The matrix times a number. */
export function scale(x: Matrix, factor: number): Matrix {
  return { ...x, data: x.data.map((value) => factor * value) };
}

/** ⟨X, Y⟩, the sum of the products of their entries. */
export function inner(x: Matrix, y: Matrix): number {
  let sum = 0;
  for (let i = 0; i < x.data.length; i++) sum += x.data[i]! * y.data[i]!;
  return sum;
}

/** Frobenius norm. */
export function norm(x: Matrix): number {
  return Math.sqrt(inner(x, x));
}

/** [X_1 X_2 …]: columns side by side. */
export function sideBySide(parts: readonly Matrix[]): Matrix {
  const rows = parts[0]!.rows;
  const out = zeros(rows, parts.reduce((sum, { columns }) => sum + columns, 0));
  let start = 0;
  for (const part of parts) {
    for (let i = 0; i < rows; i++) {
      out.data.set(
        part.data.subarray(i * part.columns, (i + 1) * part.columns),
        i * out.columns + start,
      );
    }
    start += part.columns;
  }
  return out;
}

/** Columns `from` ≤ j < `to`. */
export function columnRange(x: Matrix, from: number, to: number): Matrix {
  const out = zeros(x.rows, to - from);
  for (let i = 0; i < x.rows; i++) {
    out.data.set(x.data.subarray(i * x.columns + from, i * x.columns + to), i * out.columns);
  }
  return out;
}

/** Rows `from` ≤ i < `to`. */
export function rowRange(x: Matrix, from: number, to: number): Matrix {
  return {
    rows: to - from,
    columns: x.columns,
    data: x.data.slice(from * x.columns, to * x.columns),
  };
}

/** X = U diag(σ) Vᵀ without the singular values that are rounding. */
export interface Decomposition {
  /** `[rows, rank]`, orthonormal columns. */
  readonly left: Matrix;
  /** Descending, all above the tolerance. */
  readonly sigma: Float64Array<ArrayBuffer>;
  /** `[rank, columns]`, orthonormal rows. */
  readonly right: Matrix;
}

/**
 * Singular value decomposition.
 *
 * @param tolerance singular values up to this part of the largest count as zero
 */
export function decompose(x: Matrix, tolerance: number): Decomposition {
  const { values, left, right } = svd(x.data, x.rows, x.columns);
  let rank = 0;
  while (rank < values.length && values[rank]! > tolerance * values[0]!) rank++;
  return {
    left: transpose({ rows: rank, columns: x.rows, data: left.slice(0, rank * x.rows) }),
    sigma: values.slice(0, rank),
    right: { rows: rank, columns: x.columns, data: right.slice(0, rank * x.columns) },
  };
}

/** The leading `k` singular triplets. */
export function leading({ left, sigma, right }: Decomposition, k: number): Decomposition {
  const rank = Math.min(k, sigma.length);
  return { left: columnRange(left, 0, rank), sigma: sigma.slice(0, rank), right: rowRange(right, 0, rank) };
}

/** U diag(σ) Vᵀ. */
export function recompose({ left, sigma, right }: Decomposition): Matrix {
  return multiply(multiply(left, diagonal(sigma)), right);
}

/**
 * P Qᵀ of X = P D Qᵀ: the partial isometry nearest to X, with orthonormal columns where X has full column rank
 * (orthogonal Procrustes; Schönemann 1966).
 */
export function nearestIsometry(x: Matrix, tolerance: number): Matrix {
  const { left, right } = decompose(x, tolerance);
  return multiply(left, right);
}
