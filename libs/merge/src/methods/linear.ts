import { MergeError } from "../errors.ts";
import { rankLimit } from "../plan/rank_policy.ts";
import { concatenate } from "./concatenate.ts";
import { checkPooledRank } from "./lego_parameters.ts";
import type { ModuleMethod, Parameters } from "./method.ts";
import { sumFactors } from "./sum_factors.ts";
import { pooledRank, rankParameter, truncate } from "./truncate.ts";

const isPeftCompatible = (parameters: Parameters) => parameters.peft_compatible === true;

/** PEFT adds factors, which needs equal ranks, and takes the root of each weight. */
function checkPeftCompatible(ranks: readonly number[], module: string, parameters: Parameters): void {
  if (parameters.rank !== undefined) {
    throw new MergeError(
      "parameters_conflict",
      "rank and peft_compatible exclude each other",
      "leave one of them out",
      "parameters",
    );
  }
  if (new Set(ranks).size > 1) {
    throw new MergeError(
      "ranks_differ",
      `peft_compatible adds factors of one rank, but ${module} has the ranks ${ranks.join(", ")}`,
      "leave peft_compatible out: then linear is the exact sum, whatever the ranks",
      module,
    );
  }
}

export const linear: ModuleMethod = {
  kind: "module",
  name: "linear",
  title: "weighted sum",
  summary:
    "The weighted sum of the adapters' deltas (task arithmetic): exact, unless a rank is given. With peft_compatible it adds " +
    "the factors instead, as PEFT does, which mixes the adapters' ranks.",
  formula: "ΔW' = Σ w_t ΔW_t; peft_compatible: (Σ √|w_t s_t| B_t)(Σ sign(w_t s_t) √|w_t s_t| A_t)",
  source: "task arithmetic, arXiv 2212.04089; PEFT's linear",
  parameters: [
    { ...rankParameter, defaultText: "Σ r_t, the exact sum" },
    {
      name: "peft_compatible",
      type: "boolean",
      default: false,
      help: "add A and B apart, as PEFT does: keeps the rank, but adds cross terms B_i A_j",
    },
  ],
  needs: { baseModel: false, calibration: false },
  outputRank(ranks, parameters) {
    if (isPeftCompatible(parameters)) return ranks[0]!;
    return Math.min(rankLimit(parameters.rank) ?? Infinity, pooledRank(ranks));
  },
  check(plan, parameters) {
    if (isPeftCompatible(parameters)) {
      for (const { name, ranks } of plan.modules) checkPeftCompatible(ranks, name, parameters);
    } else checkPooledRank("linear", plan, parameters);
  },
  async merge(sources, context) {
    const { parameters, rank } = context;
    if (isPeftCompatible(parameters)) return sumFactors(sources, context);
    const isExact = rank === pooledRank(sources.map(({ a }) => a.shape[0]!));
    return await (isExact ? concatenate(sources, context) : truncate(sources, context));
  },
};
