import { qr, singularValues } from "@lora-loom/tensor";

/** A delta in factored form, ΔW = scale · B · A, in host memory. */
export interface Factored {
  readonly rank: number;
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly scale: number;
  /** `[rank, in]`, row-major */
  readonly a: ArrayLike<number>;
  /** `[out, rank]`, row-major */
  readonly b: ArrayLike<number>;
}

/** A delta and what it is multiplied by in a sum. */
export type Term = readonly [delta: Factored, factor: number];

interface Matrix {
  readonly data: Float64Array<ArrayBuffer>;
  readonly rows: number;
  readonly columns: number;
}

/** [f₁s₁B₁ f₂s₂B₂ …], `[out, Σr]`. */
function stackedB(terms: readonly Term[]): Matrix {
  const rows = terms[0]![0].outFeatures;
  const columns = terms.reduce((sum, [{ rank }]) => sum + rank, 0);
  const data = new Float64Array(rows * columns);
  let start = 0;
  for (const [{ b, rank, scale }, factor] of terms) {
    for (let o = 0; o < rows; o++) {
      for (let r = 0; r < rank; r++) data[o * columns + start + r] = factor * scale * b[o * rank + r]!;
    }
    start += rank;
  }
  return { data, rows, columns };
}

/** [A₁; A₂; …]ᵀ, `[in, Σr]`. */
function stackedTransposedA(terms: readonly Term[]): Matrix {
  const rows = terms[0]![0].inFeatures;
  const columns = terms.reduce((sum, [{ rank }]) => sum + rank, 0);
  const data = new Float64Array(rows * columns);
  let start = 0;
  for (const [{ a, rank }] of terms) {
    for (let r = 0; r < rank; r++) {
      for (let i = 0; i < rows; i++) data[i * columns + start + r] = a[r * rows + i]!;
    }
    start += rank;
  }
  return { data, rows, columns };
}

/** The factor R of X = QR; X itself when it is wider than tall, where there is nothing to reduce. */
function reduced(x: Matrix): Matrix {
  if (x.rows <= x.columns) return x;
  return { data: qr(x.data, x.rows, x.columns).r, rows: x.columns, columns: x.columns };
}

/**
 * A small matrix with the singular values of Σ factor · ΔW: with B = Q_B R_B and Aᵀ = Q_A R_A of the stacked factors,
 * BA = Q_B (R_B R_Aᵀ) Q_Aᵀ. Nothing of the size of ΔW is formed, and unlike with Gram matrices a small difference of
 * large deltas keeps its digits.
 */
function core(terms: readonly Term[]): Matrix {
  const left = reduced(stackedB(terms));
  const right = reduced(stackedTransposedA(terms));
  const data = new Float64Array(left.rows * right.rows);
  for (let i = 0; i < left.rows; i++) {
    for (let j = 0; j < right.rows; j++) {
      let sum = 0;
      for (let k = 0; k < left.columns; k++) {
        sum += left.data[i * left.columns + k]! * right.data[j * right.columns + k]!;
      }
      data[i * right.rows + j] = sum;
    }
  }
  return { data, rows: left.rows, columns: right.rows };
}

/** Singular values of one delta, largest first; min(rank, in, out) of them. */
export function spectrum(delta: Factored): Float64Array<ArrayBuffer> {
  const { data, rows, columns } = core([[delta, 1]]);
  return singularValues(data, rows, columns);
}

/** ‖Σ factor · ΔW‖_F, accurate to about 1e-14 of the largest term's norm; 0 for no terms. */
export function combinationNorm(terms: readonly Term[]): number {
  if (terms.length === 0) return 0;
  let sum = 0;
  for (const value of core(terms).data) sum += value * value;
  return Math.sqrt(sum);
}

/** Effective rank (Roy and Vetterli 2007): e to the entropy of the singular values taken as a distribution. */
export function effectiveRank(values: ArrayLike<number>): number {
  const positive = Array.from(values).filter((value) => value > 0);
  const total = positive.reduce((sum, value) => sum + value, 0);
  if (total === 0) return 0;
  return Math.exp(-positive.reduce((sum, value) => sum + (value / total) * Math.log(value / total), 0));
}
