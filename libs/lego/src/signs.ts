import { symmetricEigen } from "@lora-loom/tensor";
import { submatrix } from "./dense.ts";
import type { FactorEntries } from "./factor_entries.ts";
import { regauge, type UnitPool } from "./unit_pool.ts";

/** Turns every unit so that the entry of a with the largest magnitude is positive. */
export async function argmaxSigns(pool: UnitPool, entries: FactorEntries): Promise<UnitPool> {
  return regauge(pool, await entries.signs({ k: pool.n, p: pool.toA }));
}

/** Rescales every unit to ‖a‖ = ‖b‖. */
function balanceUnits(pool: UnitPool): UnitPool {
  const { n, gramA, gramB } = pool;
  return regauge(
    pool,
    Array.from({ length: n }, (_, i) => Math.pow(gramB[i * n + i]! / gramA[i * n + i]!, 1 / 4)),
  );
}

/**
 * Balances all units, then turns those of each cluster towards the leading eigenvector of the cluster's G_A + G_B: the
 * signs for which their mean is (nearly) longest. The largest unit of a cluster keeps its sign.
 */
export function kernelSigns(pool: UnitPool, members: readonly (readonly number[])[]): UnitPool {
  const balanced = balanceUnits(pool);
  const signs = new Float64Array(pool.n).fill(1);
  for (const cluster of members) {
    const gram = submatrix(balanced.gramA.map((x, i) => x + balanced.gramB[i]!), pool.n, cluster);
    const leading = symmetricEigen(gram, cluster.length).vectors;
    const direction = leading[0]! < 0 ? -1 : 1;
    cluster.forEach((unit, i) => signs[unit] = leading[i]! * direction < 0 ? -1 : 1);
  }
  return regauge(balanced, signs);
}
