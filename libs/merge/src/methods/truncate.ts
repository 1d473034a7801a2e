import { decideTruncation, truncateSum } from "@lora-loom/lego";
import { RANK_FORMS, rankLimit } from "../plan/rank_policy.ts";
import type { ParameterValue } from "../recipe/recipe.ts";
import { deltasOf } from "./lego_merge.ts";
import type { MergedFactors, ModuleContext, WeightedFactors } from "./method.ts";
import type { NumberParameter } from "./parameters.ts";

/** The parameter of methods that can cut the sum to a rank. */
export const rankParameter: NumberParameter = {
  name: "rank",
  type: "integer",
  minimum: 1,
  forms: RANK_FORMS,
  help: "rank of the result, which is cut to its largest singular values",
  formula: "1 ≤ k ≤ Σ r_t",
};

/** Σ r_t. */
export function pooledRank(ranks: readonly number[]): number {
  return ranks.reduce((sum, rank) => sum + rank, 0);
}

/** The rank asked for, at most Σ r_t; the largest among the adapters when none was. */
export function largestRank(ranks: readonly number[], asked: ParameterValue | undefined): number {
  return Math.min(rankLimit(asked) ?? Math.max(...ranks), pooledRank(ranks));
}

/** The best rank-k approximation of the weighted sum. */
export async function truncate(
  sources: readonly WeightedFactors[],
  { rank, decisions }: Pick<ModuleContext, "rank" | "decisions">,
): Promise<MergedFactors> {
  const { a, b, report } = await truncateSum(
    sources,
    { rank },
    decisions ? (...input) => decisions.truncation(...input) : decideTruncation,
  );
  return {
    a,
    b,
    deltas: deltasOf(report, sources),
    figures: { effective_rank_of_sum: report.effectiveRank },
  };
}
