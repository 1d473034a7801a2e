import type { Partition } from "./partition.ts";

/** Moves that gain less than this part of the point's own Kᵢᵢ are rounding. */
const LEAST_GAIN = 1e-10;

/**
 * Hartigan's improvement of a partition, in place: a point moves to the cluster where it lowers the k-means objective
 * most, counting how both centroids move along, until no single move helps. Unlike Lloyd's iteration it sees that a
 * point's own centroid contains the point, and it never empties a cluster.
 *
 * @returns whether it finished within `maxSweeps` passes over all points
 */
export function hartigan(partition: Partition, maxSweeps: number): boolean {
  for (let sweep = 0; sweep < maxSweeps; sweep++) {
    let moved = false;
    for (let point = 0; point < partition.n; point++) moved = improve(partition, point) || moved;
    if (!moved) return true;
  }
  return false;
}

function improve(partition: Partition, point: number): boolean {
  const from = partition.labels[point]!;
  if (partition.sizes[from] === 1) return false;
  const least = LEAST_GAIN * partition.kernel[point * partition.n + point]!;
  let cost = partition.leavingGain(point) - least;
  let to = from;
  for (let cluster = 0; cluster < partition.clusters; cluster++) {
    if (cluster === from || partition.sizes[cluster] === 0) continue;
    const candidate = partition.joiningCost(point, cluster);
    if (candidate < cost) {
      cost = candidate;
      to = cluster;
    }
  }
  if (to === from) return false;
  partition.remove(point);
  partition.add(point, to);
  return true;
}
