import { legoPlus as preset } from "@lora-loom/lego";
import { checkPooledRank, legoParameters, legoRank } from "./lego_parameters.ts";
import { mergeByClusters } from "./lego_merge.ts";
import type { ModuleMethod } from "./method.ts";

export const legoPlus: ModuleMethod = {
  kind: "module",
  name: "lego+",
  title: "LoRA-LEGO, following the sum",
  summary:
    "LoRA-LEGO with clusters that signs and scales within a rank cannot change, represented by their best rank-one " +
    "approximation: closer to the sum of the adapters than lego.",
  formula:
    "K_ij = ⟨a_i, a_j⟩⟨b_i, b_j⟩; (b_c, a_c) = leading singular pair of Σ_{i∈C_c} b_i a_iᵀ; ΔW' rescaled to mean ‖ΔW_t‖_F",
  source: "a variant of LoRA-LEGO, arXiv 2409.16167",
  parameters: legoParameters(preset),
  needs: { baseModel: false, calibration: false },
  outputRank: legoRank,
  check: (plan, parameters) => checkPooledRank("lego+", plan, parameters),
  merge: (sources, context) => mergeByClusters(preset, sources, context),
};
