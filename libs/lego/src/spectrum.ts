import { cholesky, gramRoot, symmetricEigenvalues, TensorError } from "@lora-loom/tensor";
import { congruence, transposed } from "./dense.ts";
import type { UnitPool } from "./unit_pool.ts";

/**
 * The squared singular values of the sum of the deltas, descending, from Gram matrices alone: the eigenvalues of
 * R G_B Rᵀ with RᵀR = G_A.
 */
export function squaredSingularValues(pool: UnitPool): Float64Array<ArrayBuffer> {
  const { n, factors } = pool;
  if (n === 0) return new Float64Array(0);
  const gramB = pool.gramB.map((x, index) => x * factors[Math.floor(index / n)]! * factors[index % n]!);
  const values = symmetricEigenvalues(congruence(root(pool.gramA, n), gramB, n, n), n);
  return values.map((x) => Math.max(0, x));
}

/** R with RᵀR = `gram`: a Cholesky factor, or the costlier symmetric root where rounding made the matrix indefinite. */
function root(gram: Float64Array, n: number): Float64Array<ArrayBuffer> {
  try {
    return transposed(cholesky(gram, n), n, n);
  } catch (error) {
    if (error instanceof TensorError && error.code === "not_positive_definite") return gramRoot(gram, n);
    throw error;
  }
}

/** The part of Σσ² that the first k hold; 1 for an all-zero spectrum. */
export function energyKept(squared: Float64Array, k: number): number {
  let all = 0;
  let kept = 0;
  squared.forEach((x, i) => {
    all += x;
    if (i < k) kept += x;
  });
  return all === 0 ? 1 : kept / all;
}

/** exp of the entropy of σ²/Σσ² (Roy & Vetterli 2007): how many dimensions the sum really uses. */
export function effectiveRank(squared: Float64Array): number {
  const all = squared.reduce((total, x) => total + x, 0);
  let entropy = 0;
  for (const x of squared) if (x > 0) entropy -= (x / all) * Math.log(x / all);
  return all === 0 ? 0 : Math.exp(entropy);
}
