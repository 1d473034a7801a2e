import { sum } from "./dense.ts";
import type { InnerProducts } from "./inner_products.ts";
import type { ResolvedOptions } from "./options.ts";
import type { UnitPool } from "./unit_pool.ts";

/**
 * The one factor of the merged delta (output reweighting). r and N count the units that are in the pool, so an
 * adapter padded with zero ranks weighs like the same one without padding.
 */
export function outputScale(
  scale: ResolvedOptions["output_scale"],
  pool: UnitPool,
  k: number,
  products: Pick<InnerProducts, "merged" | "sources">,
): number {
  if (typeof scale === "number") return scale;
  if (scale === "none") return 1;
  if (scale === "sqrt(N/k)") return Math.sqrt(pool.n / k);
  if (scale === "sqrt(r/k)") return Math.sqrt(meanRank(pool) / k);
  const present = products.sources.filter((x) => x > 0).map(Math.sqrt);
  return products.merged > 0 && present.length > 0
    ? sum(present) / present.length / Math.sqrt(products.merged)
    : 1;
}

/** Mean number of units of the adapters that have any; 0 for an empty pool. */
export function meanRank(pool: UnitPool): number {
  const present = new Set(pool.owners).size;
  return present === 0 ? 0 : pool.n / present;
}
