import { LegoError } from "./errors.ts";
import { meanRank } from "./output_scale.ts";
import type { UnitPool } from "./unit_pool.ts";

/**
 * The number of clusters: as asked, or twice the mean rank; never more than there are non-zero units.
 *
 * @throws {LegoError} `rank_out_of_range` when `asked` is not a whole number from 1 to the stack's N
 */
export function clusterCount(asked: number | undefined, pool: UnitPool): number {
  if (asked === undefined) return Math.min(pool.n, Math.max(1, Math.round(2 * meanRank(pool))));
  return Math.min(pool.n, checkedRank(asked, pool.stacked));
}

/** @throws {LegoError} `rank_out_of_range` unless `rank` is a whole number from 1 to `most` */
function checkedRank(rank: number, most: number): number {
  if (Number.isInteger(rank) && rank >= 1 && rank <= most) return rank;
  throw new LegoError(
    "rank_out_of_range",
    `rank ${rank} was asked of a module whose adapters' ranks add up to ${most}`,
    `set rank to a whole number from 1 to ${most}`,
    "rank",
  );
}
