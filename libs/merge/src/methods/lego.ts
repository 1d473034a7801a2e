import { lego as preset } from "@lora-loom/lego";
import { checkPooledRank, legoParameters, legoRank } from "./lego_parameters.ts";
import { mergeByClusters } from "./lego_merge.ts";
import type { ModuleMethod } from "./method.ts";

export const lego: ModuleMethod = {
  kind: "module",
  name: "lego",
  title: "LoRA-LEGO",
  summary:
    "Clusters the single ranks of all adapters and keeps one representative of each cluster. As published, with an " +
    "optimiser that gives the same clusters every time.",
  formula:
    "x_i = [a_i; b_i]; k-means into C_1 … C_k; μ_c = mean of C_c, rescaled to its members' mean ∞-norm; ΔW' = √(r/k) Σ_c b_c a_cᵀ",
  source: "LoRA-LEGO, arXiv 2409.16167 (ICLR 2025)",
  parameters: legoParameters(preset),
  needs: { baseModel: false, calibration: false },
  outputRank: legoRank,
  check: (plan, parameters) => checkPooledRank("lego", plan, parameters),
  merge: (sources, context) => mergeByClusters(preset, sources, context),
};
