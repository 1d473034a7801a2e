import { MergeError } from "../errors.ts";
import type { PlannedRanks } from "../methods/method.ts";

/**
 * Refuses modules where the adapters' ranks differ, for methods that add up factors.
 *
 * @param method as the message names it
 * @param fix what to do besides taking adapters of one rank
 * @throws {MergeError} `ranks_differ`
 */
export function checkEqualRanks(
  method: string,
  modules: PlannedRanks["modules"],
  fix = "take another method, such as svd",
): void {
  for (const { name, ranks } of modules) {
    if (ranks.every((rank) => rank === ranks[0])) continue;
    throw new MergeError(
      "ranks_differ",
      `${method} adds up A and B apart, which needs equal ranks, but ${name} has the ranks ${
        ranks.join(", ")
      }`,
      `${fix}, or merge adapters of one rank`,
      name,
    );
  }
}
