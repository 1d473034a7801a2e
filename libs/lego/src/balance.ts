import { transposed } from "./dense.ts";
import type { Combination } from "./factor_entries.ts";
import { scaledPairs, selectPairs, squaredNorms } from "./forms.ts";
import type { UnitPool } from "./unit_pool.ts";

/** Squared norms below this part of their largest possible value are cancellation, not length. */
const CANCELLED = 1e-24;

/**
 * Makes ‖aᶜ‖ = ‖bᶜ‖ for every pair, which uses the range of float16 best and leaves the delta as it was. Pairs with a or b
 * cancelled to zero contribute nothing and are dropped.
 */
export function balancePairs<Kind extends Combination>(pool: UnitPool, pairs: Kind): Kind {
  const norms = squaredNorms(pool, pairs);
  const limits = {
    a: largestNorms(pairs.p, pool.gramA, pairs.k, pool.n),
    b: largestNorms(transposed(pairs.q, pool.n, pairs.k), pool.gramB, pairs.k, pool.n),
  };
  const kept = Array.from({ length: pairs.k }, (_, c) => c)
    .filter((c) => norms.a[c]! > CANCELLED * limits.a[c]! && norms.b[c]! > CANCELLED * limits.b[c]!);
  const factors = kept.map((c) => Math.pow(norms.b[c]! / norms.a[c]!, 1 / 4));
  return scaledPairs(selectPairs(pairs, pool.n, kept), pool.n, factors, factors.map((x) => 1 / x));
}

/** (Σⱼ |t[c, j]| ‖xⱼ‖)², what the squared norm would be without any cancellation. */
function largestNorms(t: Float64Array, g: Float64Array, k: number, n: number): Float64Array<ArrayBuffer> {
  return Float64Array.from({ length: k }, (_, c) => {
    let total = 0;
    for (let j = 0; j < n; j++) total += Math.abs(t[c * n + j]!) * Math.sqrt(g[j * n + j]!);
    return total * total;
  });
}
