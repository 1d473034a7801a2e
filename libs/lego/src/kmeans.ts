import type { ResolvedOptions } from "./options.ts";
import { Partition } from "./partition.ts";

/** The points that serve as first centroids. */
export function initialCentres(
  kernel: Float64Array,
  n: number,
  clusters: number,
  random: () => number,
  initialisation: ResolvedOptions["initialisation"],
): number[] {
  return initialisation === "random"
    ? distinctPoints(n, clusters, random)
    : plusPlus(kernel, n, clusters, random);
}

/** Every point to its nearest centre; ties go to the first. */
export function nearestCentre(
  kernel: Float64Array,
  n: number,
  centres: readonly number[],
): Int32Array<ArrayBuffer> {
  const labels = new Int32Array(n);
  for (let i = 0; i < n; i++) {
    let least = Infinity;
    centres.forEach((centre, cluster) => {
      const d = distance(kernel, n, i, centre);
      if (d < least) {
        least = d;
        labels[i] = cluster;
      }
    });
  }
  // A centre that coincides with an earlier one still keeps itself, so that no cluster starts empty.
  centres.forEach((centre, cluster) => labels[centre] = cluster);
  return labels;
}

/**
 * Lloyd's iteration: every point to its nearest centroid, until nothing changes. An emptied cluster takes the point that is
 * farthest from its centroid.
 */
export function lloyd(start: Partition, maxIterations: number): Partition {
  const { kernel, n, clusters } = start;
  let partition = start;
  for (let iteration = 0; iteration < maxIterations; iteration++) {
    const labels = nearestCentroids(partition);
    refill(labels, partition);
    if (labels.every((label, i) => label === partition.labels[i])) break;
    partition = new Partition(kernel, n, clusters, labels);
  }
  return partition;
}

function nearestCentroids(partition: Partition): Int32Array<ArrayBuffer> {
  const labels = new Int32Array(partition.n);
  for (let i = 0; i < partition.n; i++) {
    let least = Infinity;
    for (let cluster = 0; cluster < partition.clusters; cluster++) {
      if (partition.sizes[cluster] === 0) continue;
      const d = partition.distance(i, cluster);
      if (d < least) {
        least = d;
        labels[i] = cluster;
      }
    }
  }
  return labels;
}

function refill(labels: Int32Array, partition: Partition): void {
  const sizes = new Int32Array(partition.clusters);
  for (const label of labels) sizes[label]!++;
  for (let empty = 0; empty < partition.clusters; empty++) {
    if (sizes[empty]! > 0) continue;
    let farthest = -1;
    let greatest = -1;
    for (let i = 0; i < partition.n; i++) {
      if (sizes[labels[i]!] === 1) continue;
      const d = partition.distance(i, labels[i]!);
      if (d > greatest) {
        greatest = d;
        farthest = i;
      }
    }
    sizes[labels[farthest]!]!--;
    labels[farthest] = empty;
    sizes[empty] = 1;
  }
}

function distinctPoints(n: number, count: number, random: () => number): number[] {
  const points = Array.from({ length: n }, (_, i) => i);
  for (let i = 0; i < count; i++) {
    const other = i + Math.floor(random() * (n - i));
    [points[i], points[other]] = [points[other]!, points[i]!];
  }
  return points.slice(0, count);
}

/** k-means++ (Arthur & Vassilvitskii 2007): each centre is drawn with probability proportional to the squared distance. */
function plusPlus(kernel: Float64Array, n: number, clusters: number, random: () => number): number[] {
  const centres = [Math.floor(random() * n)];
  const nearest = Float64Array.from({ length: n }, (_, i) => distance(kernel, n, i, centres[0]!));
  while (centres.length < clusters) {
    const next = draw(nearest, centres, random);
    centres.push(next);
    for (let i = 0; i < n; i++) nearest[i] = Math.min(nearest[i]!, distance(kernel, n, i, next));
  }
  return centres;
}

/** A point drawn by weight; where only copies of the centres are left, the first that is not one of them. */
function draw(weights: Float64Array, taken: readonly number[], random: () => number): number {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let remaining = random() * total;
  let last = -1;
  for (let i = 0; i < weights.length; i++) {
    if (weights[i] === 0) continue;
    last = i;
    remaining -= weights[i]!;
    if (remaining < 0) break;
  }
  return last >= 0 ? last : weights.findIndex((_, i) => !taken.includes(i));
}

function distance(kernel: Float64Array, n: number, i: number, j: number): number {
  return i === j ? 0 : Math.max(0, kernel[i * n + i]! + kernel[j * n + j]! - 2 * kernel[i * n + j]!);
}
