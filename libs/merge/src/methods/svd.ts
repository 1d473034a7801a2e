import { checkPooledRank } from "./lego_parameters.ts";
import type { ModuleMethod } from "./method.ts";
import { largestRank, rankParameter, truncate } from "./truncate.ts";

export const svd: ModuleMethod = {
  kind: "module",
  name: "svd",
  title: "best rank-k approximation of the sum",
  summary:
    "Sums the adapters and keeps what matters most of the sum: no adapter of this rank is closer to it.",
  formula: "ΔW' = the k largest singular triplets of Σ w_t ΔW_t",
  source: "Eckart and Young 1936; PEFT's svd",
  parameters: [{ ...rankParameter, defaultText: "the largest rank among the adapters" }],
  needs: { baseModel: false, calibration: false },
  outputRank: (ranks, parameters) => largestRank(ranks, parameters.rank),
  check: (plan, parameters) => checkPooledRank("svd", plan, parameters),
  merge: truncate,
};
