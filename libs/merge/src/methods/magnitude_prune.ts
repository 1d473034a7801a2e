import { DENSITY } from "../datafree/common_parameters.ts";
import { type ElementwiseDefinition, elementwiseMethod } from "../datafree/elementwise.ts";
import { keepLargest } from "../datafree/sparsify.ts";
import type { ModuleMethod } from "./method.ts";

const MAGNITUDE_PRUNE: Omit<ElementwiseDefinition, "name" | "title" | "summary" | "peftMergesFactors"> = {
  formula: "ΔW' = best rank-k of Σ w_t x_t, x_t = the largest entries of ΔW_t",
  source: "PEFT 0.21",
  parameters: [DENSITY],
  sparsifier: (entries, _tensor, { density }) => keepLargest(entries, density as number),
  rule: () => ({ rule: "sum" }),
};

export const magnitudePrune: ModuleMethod = elementwiseMethod({
  ...MAGNITUDE_PRUNE,
  name: "magnitude_prune",
  title: "Magnitude pruning",
  summary: "Keeps each delta's largest entries and adds up: TIES without the election of signs.",
  peftMergesFactors: true,
});

export const magnitudePruneSvd: ModuleMethod = elementwiseMethod({
  ...MAGNITUDE_PRUNE,
  name: "magnitude_prune_svd",
  title: "Magnitude pruning on deltas",
  summary: "As magnitude_prune, which with peft_compatible works on A and B apart, and this does not.",
  peftMergesFactors: false,
});
