import { TensorError } from "../errors.ts";
import { checkSize } from "./check.ts";
import { dot } from "./rows.ts";
import { svd } from "./svd.ts";
import { symmetricEigen } from "./symmetric_eigen.ts";

/** The arguments of {@linkcode truncateFromGrams}. */
export interface FactorGrams {
  /** A Aᵀ of the factor A (n × d_in), n × n. */
  readonly gramA: Float64Array;
  /** Bᵀ B of the factor B (d_out × n), n × n. */
  readonly gramB: Float64Array;
  readonly n: number;
  /** The rank wanted. */
  readonly k: number;
  /** Singular values below this part of the largest are noise and are dropped. Default 1e-6. */
  readonly tolerance?: number;
}

/** B Q · P A is the best approximation of B A with `rank` dimensions; the factors are balanced. */
export interface Truncation {
  /** rank × n: A' = P A. */
  readonly p: Float64Array<ArrayBuffer>;
  /** n × rank: B' = B Q. */
  readonly q: Float64Array<ArrayBuffer>;
  /** All n singular values of B A, descending. */
  readonly sigma: Float64Array<ArrayBuffer>;
  /** At most k: fewer where the product has fewer dimensions. */
  readonly rank: number;
  /** The part of `sigma` that was left out. */
  readonly dropped: Float64Array<ArrayBuffer>;
}

/**
 * The best rank-k approximation of B A from the Gram matrices of the two factors, without inverting either (they may be
 * singular) and without forming the product: with R_AᵀR_A = AAᵀ, R_BᵀR_B = BᵀB and R_B R_Aᵀ = UΣVᵀ,
 * P = Σ_k^(−1/2) U_kᵀ R_B and Q = R_Aᵀ V_k Σ_k^(−1/2). Rows of PA and columns of BQ have norms √σᵢ.
 *
 * @throws {TensorError} `shape_mismatch`; `rank_out_of_range` unless 1 ≤ k ≤ n; `not_finite`
 */
export function truncateFromGrams({ gramA, gramB, n, k, tolerance = 1e-6 }: FactorGrams): Truncation {
  checkSize(gramA, n, n, "truncateFromGrams");
  checkSize(gramB, n, n, "truncateFromGrams");
  if (!Number.isInteger(k) || k < 1 || k > n) {
    throw new TensorError(
      "rank_out_of_range",
      `rank ${k} was asked of a product of factors of rank ${n}`,
      `choose a whole number from 1 to ${n}`,
      "truncateFromGrams",
    );
  }
  const gauge = balancingGauge(gramA, gramB, n);
  const rootA = gramRoot(regauged(gramA, gauge, n), n);
  const inverse = gauge.map((x) => 1 / x);
  const rootB = gramRoot(regauged(gramB, inverse, n), n);
  const { values: sigma, left, right } = svd(timesTransposed(rootB, rootA, n), n, n);
  let rank = 0;
  while (rank < k && sigma[rank]! > tolerance * sigma[0]!) rank++;

  const p = new Float64Array(rank * n);
  const q = new Float64Array(n * rank);
  for (let i = 0; i < rank; i++) {
    const factor = 1 / Math.sqrt(sigma[i]!);
    for (let row = 0; row < n; row++) {
      const u = factor * left[i * n + row]!;
      const v = factor * right[i * n + row]!;
      for (let j = 0; j < n; j++) {
        p[i * n + j]! += u * rootB[row * n + j]! * gauge[j]!;
        q[j * rank + i]! += v * rootA[row * n + j]! * inverse[j]!;
      }
    }
  }
  return { p, q, sigma, rank, dropped: sigma.slice(rank) };
}

/**
 * Factors gᵢ with ‖gᵢ · row i of A‖ = ‖column i of B / gᵢ‖, so that accuracy does not depend on how each rank-one term is
 * split between its two factors; 1 where either is zero.
 */
function balancingGauge(gramA: Float64Array, gramB: Float64Array, n: number): Float64Array<ArrayBuffer> {
  return Float64Array.from({ length: n }, (_, i) => {
    const a = gramA[i * n + i]!, b = gramB[i * n + i]!;
    return a > 0 && b > 0 ? Math.pow(b / a, 1 / 4) : 1;
  });
}

/** D G D with D = diag(gauge). */
function regauged(gram: Float64Array, gauge: Float64Array, n: number): Float64Array<ArrayBuffer> {
  return Float64Array.from(gram, (x, index) => x * gauge[Math.floor(index / n)]! * gauge[index % n]!);
}

/** An n × n matrix R with RᵀR = `gram`; eigenvalues that rounding made negative count as zero. */
export function gramRoot(gram: Float64Array, n: number): Float64Array<ArrayBuffer> {
  const { values, vectors } = symmetricEigen(gram, n);
  for (let i = 0; i < n; i++) {
    const factor = Math.sqrt(Math.max(0, values[i]!));
    for (let j = 0; j < n; j++) vectors[i * n + j]! *= factor;
  }
  return vectors;
}

/** X Yᵀ of two n × n matrices. */
function timesTransposed(x: Float64Array, y: Float64Array, n: number): Float64Array<ArrayBuffer> {
  const out = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) out[i * n + j] = dot(x, i * n, y, j * n, n);
  }
  return out;
}
