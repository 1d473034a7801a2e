import { symmetricEigenvalues } from "@lora-loom/tensor";
import type { Clustering } from "./cluster.ts";
import { sum } from "./dense.ts";
import type { InnerProducts } from "./inner_products.ts";
import { clusterMembers } from "./partition.ts";
import { cosines } from "./similarity.ts";
import { effectiveRank, energyKept, squaredSingularValues } from "./spectrum.ts";
import type { UnitPool } from "./unit_pool.ts";

/** How one module came out, from Gram matrices alone. */
export interface DeltaReport {
  /** Rank of the result: fewer than asked where the pool offers fewer. */
  readonly rank: number;
  /** Non-zero units in the pool. */
  readonly units: number;
  /** Units left out because a or b was zero. */
  readonly zeroUnits: number;
  /** The squared norms and inner products behind the figures below; they add up over modules. */
  readonly products: InnerProducts;
  /** cos(ΔW', ΔW_t), by adapter; 0 where either is zero. */
  readonly cosineToSources: readonly number[];
  /** cos(ΔW', Σ ΔW_t). */
  readonly cosineToSum: number;
  /** ‖ΔW'‖ over the mean of ‖ΔW_t‖. */
  readonly normRatio: number;
  /** √(1 − cos²) to Σ ΔW_t: what was lost, whatever the scale. */
  readonly loss: number;
  /** The same for the best approximation of this rank. */
  readonly bestLoss: number;
  /** Part of the squared norm of Σ ΔW_t that the best approximation of this rank holds. */
  readonly energyKept: number;
  /** Effective rank of Σ ΔW_t. */
  readonly effectiveRank: number;
}

/** Mean |cos| of pairs of units. */
export interface PairCosines {
  /** Pairs within one adapter; 0 if there are none. */
  readonly within: number;
  /** Pairs across adapters; 0 if there are none. */
  readonly across: number;
}

/** {@linkcode DeltaReport} with what clustering did. */
export interface LegoReport extends DeltaReport {
  /** Largest first. */
  readonly clusterSizes: readonly number[];
  readonly singletons: number;
  /** Part of the clusters that hold units of at least two adapters. */
  readonly mixedShare: number;
  readonly cosinesA: PairCosines;
  readonly cosinesB: PairCosines;
  /** The k-means objective reached. */
  readonly inertia: number;
  /** Σ of the eigenvalues of the kernel beyond the k-th: no partition has less inertia. */
  readonly inertiaBound: number;
  /** Mean adjusted Rand index of the other starts against the kept one, when there were several. */
  readonly restartAgreement?: number;
  /** The factor of the whole result. */
  readonly outputScale: number;
}

/**
 * Cosines, norms and losses of a merged delta of rank `k`.
 *
 * @param squared the squared singular values of the sum, where they are known already
 */
export function deltaReport(
  pool: UnitPool,
  k: number,
  products: InnerProducts,
  squared: Float64Array = squaredSingularValues(pool),
): DeltaReport {
  const cosineToSum = cosine(products.mergedSum, products.merged, products.sum);
  const kept = energyKept(squared, k);
  const present = products.sources.filter((x) => x > 0).map(Math.sqrt);
  return {
    rank: k,
    units: pool.n,
    zeroUnits: pool.stacked - pool.n,
    products,
    cosineToSources: products.sources.map((x, t) => cosine(products.mergedSources[t]!, products.merged, x)),
    cosineToSum,
    normRatio: present.length === 0 ? 0 : Math.sqrt(products.merged) / (sum(present) / present.length),
    loss: Math.sqrt(Math.max(0, 1 - cosineToSum ** 2)),
    bestLoss: Math.sqrt(Math.max(0, 1 - kept)),
    energyKept: kept,
    effectiveRank: effectiveRank(squared),
  };
}

/** Adds what clustering did. */
export function legoReport(
  pool: UnitPool,
  kernel: Float64Array,
  clustering: Clustering,
  delta: DeltaReport,
  outputScale: number,
): LegoReport {
  const members = clusterMembers(clustering.labels);
  const mixed =
    members.filter((cluster) => new Set(cluster.map((unit) => pool.owners[unit])).size > 1).length;
  const values = symmetricEigenvalues(kernel, pool.n);
  return {
    ...delta,
    clusterSizes: members.map((cluster) => cluster.length).sort((x, y) => y - x),
    singletons: members.filter((cluster) => cluster.length === 1).length,
    mixedShare: members.length === 0 ? 0 : mixed / members.length,
    cosinesA: pairCosines(pool.gramA, pool),
    cosinesB: pairCosines(pool.gramB, pool),
    inertia: clustering.inertia,
    inertiaBound: sum(values.slice(members.length).map((x) => Math.max(0, x))),
    ...(clustering.agreement === undefined ? {} : { restartAgreement: clustering.agreement }),
    outputScale,
  };
}

/** ⟨x, y⟩ / (‖x‖ ‖y‖) from an inner product and squared norms; 0 for a zero vector. */
export function cosine(inner: number, squaredX: number, squaredY: number): number {
  const norms = Math.sqrt(squaredX) * Math.sqrt(squaredY);
  return norms === 0 ? 0 : Math.max(-1, Math.min(1, inner / norms));
}

function pairCosines(gram: Float64Array, { n, owners }: UnitPool): PairCosines {
  const normalised = cosines(gram, n);
  const totals = { within: 0, across: 0 };
  const counts = { within: 0, across: 0 };
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) {
      const where = owners[i] === owners[j] ? "within" : "across";
      totals[where] += Math.abs(normalised[i * n + j]!);
      counts[where]++;
    }
  }
  return { within: totals.within / (counts.within || 1), across: totals.across / (counts.across || 1) };
}
