import { adjustedRandIndex } from "./adjusted_rand_index.ts";
import { hartigan } from "./hartigan.ts";
import { initialCentres, lloyd, nearestCentre } from "./kmeans.ts";
import { onePerAdapter } from "./one_per_adapter.ts";
import type { ResolvedOptions } from "./options.ts";
import { canonicalLabels, Partition } from "./partition.ts";
import { seededRandom } from "./random.ts";
import { ward } from "./ward.ts";

/** The options that clustering reads. */
export type ClusteringOptions = Pick<
  ResolvedOptions,
  "optimizer" | "initialisation" | "restarts" | "max_iterations" | "seed" | "one_per_adapter"
>;

/** Which cluster each unit is in, and how good that is. */
export interface Clustering {
  /** Numbered by first appearance. */
  readonly labels: readonly number[];
  /** The k-means objective. */
  readonly inertia: number;
  /** Mean adjusted Rand index of the other starts against the kept one; absent with one start. */
  readonly agreement?: number;
}

/** Minimises the k-means objective Σ_C Σ_{i∈C} ‖xᵢ − μ_C‖² over partitions into `clusters`, from the n × n kernel alone. */
export function cluster(
  kernel: Float64Array,
  n: number,
  clusters: number,
  owners: readonly number[],
  options: ClusteringOptions,
): Clustering {
  if (options.one_per_adapter) {
    return described(onePerAdapter(kernel, n, clusters, owners, options.max_iterations));
  }
  const starts = [...partitions(kernel, n, clusters, options)];
  const best = starts.reduce((kept, candidate) => candidate.inertia() < kept.inertia() ? candidate : kept);
  return described(best, starts.filter((start) => start !== best));
}

function* partitions(
  kernel: Float64Array,
  n: number,
  clusters: number,
  options: ClusteringOptions,
): Generator<Partition> {
  const random = seededRandom(options.seed);
  const start = () => {
    const centres = initialCentres(kernel, n, clusters, random, options.initialisation);
    return new Partition(kernel, n, clusters, nearestCentre(kernel, n, centres));
  };
  const improved = (partition: Partition) => {
    hartigan(partition, options.max_iterations);
    return partition;
  };
  if (options.optimizer === "ward") {
    yield improved(new Partition(kernel, n, clusters, canonicalLabels(ward(kernel, n, clusters))));
    for (let run = 0; run < options.restarts; run++) yield improved(start());
  } else {
    for (let run = 0; run < Math.max(1, options.restarts); run++) {
      yield lloyd(start(), options.max_iterations);
    }
  }
}

function described(best: Partition, others: readonly Partition[] = []): Clustering {
  const labels = canonicalLabels(best.labels);
  if (others.length === 0) return { labels, inertia: best.inertia() };
  const total = others.reduce((sum, other) => sum + adjustedRandIndex(labels, other.labels), 0);
  return { labels, inertia: best.inertia(), agreement: total / others.length };
}
