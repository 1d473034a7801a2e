/**
 * A partition of n points into clusters, with the sums over a kernel matrix that distances to centroids need:
 * ‖xᵢ − μ_C‖² = Kᵢᵢ − (2/|C|) Σ_{j∈C} Kᵢⱼ + |C|⁻² Σ_{j,l∈C} Kⱼₗ. Distances that cancellation makes negative count as zero.
 */
export class Partition {
  readonly labels: Int32Array<ArrayBuffer>;
  readonly sizes: Int32Array<ArrayBuffer>;
  /** Σ Kᵢᵢ: what inertia is measured against. */
  readonly trace: number;
  /** Σ_{j∈C} Kᵢⱼ at [C, i]. */
  readonly #towards: Float64Array<ArrayBuffer>;
  /** Σ_{j,l∈C} Kⱼₗ. */
  readonly #within: Float64Array<ArrayBuffer>;

  /**
   * @param kernel n × n
   * @param clusters number of clusters, empty ones included
   * @param labels the cluster of each point, or −1 for a point that is in none yet
   */
  constructor(
    readonly kernel: Float64Array,
    readonly n: number,
    readonly clusters: number,
    labels: ArrayLike<number>,
  ) {
    this.labels = new Int32Array(n).fill(-1);
    this.sizes = new Int32Array(clusters);
    this.#towards = new Float64Array(clusters * n);
    this.#within = new Float64Array(clusters);
    let trace = 0;
    for (let i = 0; i < n; i++) trace += kernel[i * n + i]!;
    this.trace = trace;
    for (let i = 0; i < n; i++) if (labels[i]! >= 0) this.add(i, labels[i]!);
  }

  /** Puts a point that is in no cluster into one: O(n). */
  add(point: number, cluster: number): void {
    const { kernel, n } = this;
    this.#within[cluster]! += 2 * this.#towards[cluster * n + point]! + kernel[point * n + point]!;
    for (let j = 0; j < n; j++) this.#towards[cluster * n + j]! += kernel[point * n + j]!;
    this.sizes[cluster]!++;
    this.labels[point] = cluster;
  }

  /** Takes a point out of its cluster: O(n). */
  remove(point: number): void {
    const { kernel, n } = this;
    const cluster = this.labels[point]!;
    for (let j = 0; j < n; j++) this.#towards[cluster * n + j]! -= kernel[point * n + j]!;
    this.#within[cluster]! -= 2 * this.#towards[cluster * n + point]! + kernel[point * n + point]!;
    this.sizes[cluster]!--;
    this.labels[point] = -1;
    if (this.sizes[cluster] === 0) {
      this.#within[cluster] = 0;
      this.#towards.fill(0, cluster * n, (cluster + 1) * n);
    }
  }

  /** Squared distance of a point to the centroid of a cluster that is not empty. */
  distance(point: number, cluster: number): number {
    const size = this.sizes[cluster]!;
    const cross = this.#towards[cluster * this.n + point]! / size;
    const d = this.kernel[point * this.n + point]! - 2 * cross + this.#within[cluster]! / (size * size);
    return Math.max(0, d);
  }

  /** How much the inertia grows when a point that is in no cluster joins one. */
  joiningCost(point: number, cluster: number): number {
    const size = this.sizes[cluster]!;
    return size === 0 ? 0 : (size / (size + 1)) * this.distance(point, cluster);
  }

  /** How much the inertia falls when a point leaves its cluster of more than one. */
  leavingGain(point: number): number {
    const size = this.sizes[this.labels[point]!]!;
    return (size / (size - 1)) * this.distance(point, this.labels[point]!);
  }

  /** The k-means objective Σ_C Σ_{i∈C} ‖xᵢ − μ_C‖². */
  inertia(): number {
    let total = this.trace;
    for (let c = 0; c < this.clusters; c++) {
      if (this.sizes[c]! > 0) total -= this.#within[c]! / this.sizes[c]!;
    }
    return Math.max(0, total);
  }
}

/** Renumbers labels by first appearance, so that equal partitions have equal labels. */
export function canonicalLabels(labels: ArrayLike<number>): number[] {
  const numbers = new Map<number, number>();
  return Array.from(labels, (label) => {
    if (!numbers.has(label)) numbers.set(label, numbers.size);
    return numbers.get(label)!;
  });
}

/** The points of each cluster. */
export function clusterMembers(labels: readonly number[]): number[][] {
  const members: number[][] = [];
  labels.forEach((label, i) => (members[label] ??= []).push(i));
  return members;
}
