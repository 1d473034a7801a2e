import { LegoError } from "./errors.ts";
import { hungarian } from "./hungarian.ts";
import { Partition } from "./partition.ts";

/** Gains below this part of Σ Kᵢᵢ are rounding. */
const LEAST_GAIN = 1e-12;

/**
 * A partition with at most one unit of each adapter in a cluster: adapters are placed in turn by Hungarian assignment on
 * the growth of the k-means objective, then each is taken out and placed anew until nothing improves. Every adapter has
 * its turn to be placed first; the best result is kept.
 *
 * @param owners the adapter of each point
 * @throws {LegoError} `rank_out_of_range` when some adapter has more units than there are clusters
 */
export function onePerAdapter(
  kernel: Float64Array,
  n: number,
  clusters: number,
  owners: readonly number[],
  maxSweeps: number,
): Partition {
  const units = new Map<number, number[]>();
  owners.forEach((owner, i) => units.set(owner, [...units.get(owner) ?? [], i]));
  const adapters = [...units.keys()].sort((x, y) => units.get(y)!.length - units.get(x)!.length || x - y);
  const largest = units.get(adapters[0]!)!.length;
  if (largest > clusters) {
    throw new LegoError(
      "rank_out_of_range",
      `one_per_adapter with rank ${clusters}: an adapter has ${largest} units, which need as many clusters`,
      `set rank to at least ${largest}, or one_per_adapter to false`,
      "rank",
    );
  }
  let best: Partition | undefined;
  for (const first of adapters) {
    const order = [first, ...adapters.filter((adapter) => adapter !== first)].map((adapter) =>
      units.get(adapter)!
    );
    const candidate = assign(
      new Partition(kernel, n, clusters, new Int32Array(n).fill(-1)),
      order,
      maxSweeps,
    );
    if (!best || candidate.inertia() < best.inertia()) best = candidate;
  }
  return best!;
}

function assign(partition: Partition, order: readonly number[][], maxSweeps: number): Partition {
  for (const units of order) place(partition, units);
  for (let sweep = 0; sweep < maxSweeps; sweep++) {
    let changed = false;
    for (const units of order) changed = replace(partition, units) || changed;
    if (!changed) break;
  }
  return partition;
}

/** Places the units of one adapter, none of which is in a cluster, at least total cost. */
function place(partition: Partition, units: readonly number[]): void {
  const cost = Float64Array.from(
    { length: units.length * partition.clusters },
    (_, index) =>
      partition.joiningCost(units[Math.floor(index / partition.clusters)]!, index % partition.clusters),
  );
  hungarian(cost, units.length, partition.clusters).forEach((cluster, i) =>
    partition.add(units[i]!, cluster)
  );
}

/** Takes the units of one adapter out and places them anew; whether that lowered the objective. */
function replace(partition: Partition, units: readonly number[]): boolean {
  const before = partition.inertia();
  const labels = units.map((unit) => partition.labels[unit]!);
  for (const unit of units) partition.remove(unit);
  place(partition, units);
  if (partition.inertia() < before - LEAST_GAIN * partition.trace) return true;
  for (const unit of units) partition.remove(unit);
  units.forEach((unit, i) => partition.add(unit, labels[i]!));
  return false;
}
