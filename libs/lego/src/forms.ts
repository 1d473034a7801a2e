import { product, transposed } from "./dense.ts";
import type { Combination } from "./factor_entries.ts";
import type { UnitPool } from "./unit_pool.ts";

/** Squared norms of the a and b of each combined pair: the diagonals of P G_A Pᵀ and Qᵀ G_B Q. */
export function squaredNorms(pool: UnitPool, { k, p, q }: Combination) {
  return {
    a: diagonalForm(p, pool.gramA, k, pool.n),
    b: diagonalForm(transposed(q, pool.n, k), pool.gramB, k, pool.n),
  };
}

/** The diagonal of T G Tᵀ for a k × n matrix T. */
function diagonalForm(t: Float64Array, g: Float64Array, k: number, n: number): Float64Array<ArrayBuffer> {
  const half = product(t, g, k, n, n);
  return Float64Array.from({ length: k }, (_, c) => {
    let total = 0;
    for (let j = 0; j < n; j++) total += half[c * n + j]! * t[c * n + j]!;
    return Math.max(0, total);
  });
}

/** The same pairs with a and b of pair c multiplied by `a[c]` and `b[c]`. */
export function scaledPairs<Kind extends Combination>(
  pairs: Kind,
  n: number,
  a: ArrayLike<number>,
  b: ArrayLike<number>,
): Kind {
  return {
    ...pairs,
    p: pairs.p.map((x, index) => x * a[Math.floor(index / n)]!),
    q: pairs.q.map((x, index) => x * b[index % pairs.k]!),
  };
}

/** Some of the pairs, in the order given. */
export function selectPairs<Kind extends Combination>(pairs: Kind, n: number, kept: readonly number[]): Kind {
  const k = kept.length;
  const p = new Float64Array(k * n);
  const q = new Float64Array(n * k);
  kept.forEach((from, to) => {
    p.set(pairs.p.subarray(from * n, (from + 1) * n), to * n);
    for (let j = 0; j < n; j++) q[j * k + to] = pairs.q[j * pairs.k + from]!;
  });
  return { ...pairs, k, p, q };
}

/** Coefficients over the units of a pool turned into coefficients over the stacked factors. */
export function overStack(pool: UnitPool, { k, p, q }: Combination): Combination {
  return {
    k,
    p: product(p, pool.toA, k, pool.n, pool.stacked),
    q: product(pool.toB, q, pool.stacked, pool.n, k),
  };
}
