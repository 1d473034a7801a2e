import { truncateFromGrams } from "@lora-loom/tensor";
import { submatrix } from "./dense.ts";
import type { Combination } from "./factor_entries.ts";
import type { ResolvedOptions } from "./options.ts";
import type { UnitPool } from "./unit_pool.ts";

/** One pair per cluster over the units of a pool, and the members it stands for. */
export interface Representatives extends Combination {
  readonly members: readonly (readonly number[])[];
}

/**
 * The pair that stands for each cluster: the mean of its units, or the leading singular pair of Σ bᵢ aᵢᵀ. A cluster whose
 * deltas cancel has no singular pair and is left out.
 */
export function representatives(
  pool: UnitPool,
  members: readonly (readonly number[])[],
  kind: ResolvedOptions["representative"],
): Representatives {
  const found = members
    .map((cluster) => ({ cluster, weights: kind === "mean" ? mean(cluster) : leadingPair(pool, cluster) }))
    .filter(({ weights }) => weights !== undefined);
  const k = found.length;
  const p = new Float64Array(k * pool.n);
  const q = new Float64Array(pool.n * k);
  found.forEach(({ cluster, weights }, c) =>
    cluster.forEach((unit, i) => {
      p[c * pool.n + unit] = weights!.a[i]!;
      q[unit * k + c] = weights!.b[i]!;
    })
  );
  return { k, p, q, members: found.map(({ cluster }) => cluster) };
}

interface Weights {
  readonly a: ArrayLike<number>;
  readonly b: ArrayLike<number>;
}

function mean(cluster: readonly number[]): Weights {
  const weights = cluster.map(() => 1 / cluster.length);
  return { a: weights, b: weights };
}

function leadingPair(pool: UnitPool, cluster: readonly number[]): Weights | undefined {
  const gramA = submatrix(pool.gramA, pool.n, cluster);
  const gramB = submatrix(pool.gramB, pool.n, cluster);
  const { rank, p, q, sigma } = truncateFromGrams({ gramA, gramB, n: cluster.length, k: 1 });
  return rank === 1 && sigma[0]! > largestDelta(gramA, gramB, cluster.length) * 1e-10
    ? { a: p, b: q }
    : undefined;
}

/** The norm of the largest rank-one delta of a cluster. */
function largestDelta(gramA: Float64Array, gramB: Float64Array, n: number): number {
  let largest = 0;
  for (let i = 0; i < n; i++) largest = Math.max(largest, Math.sqrt(gramA[i * n + i]! * gramB[i * n + i]!));
  return largest;
}
