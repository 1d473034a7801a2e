import { concatenate } from "./concatenate.ts";
import type { ModuleMethod } from "./method.ts";
import { pooledRank } from "./truncate.ts";

export const cat: ModuleMethod = {
  kind: "module",
  name: "cat",
  title: "concatenation",
  summary: "The exact weighted sum of the adapters, by stacking their factors; the ranks add up.",
  formula: "A' = [A_1; …; A_T], B' = [w_1 s_1 B_1 … w_T s_T B_T], so ΔW' = Σ w_t ΔW_t",
  source: "PEFT's cat",
  parameters: [],
  needs: { baseModel: false, calibration: false },
  outputRank: pooledRank,
  merge: concatenate,
};
