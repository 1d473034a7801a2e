import { DENSITY, MAJORITY_SIGN_METHOD } from "../datafree/common_parameters.ts";
import { type ElementwiseDefinition, elementwiseMethod } from "../datafree/elementwise.ts";
import { keepLargest } from "../datafree/sparsify.ts";
import type { ModuleMethod } from "./method.ts";

const TIES: Omit<ElementwiseDefinition, "name" | "title" | "summary" | "peftMergesFactors"> = {
  formula:
    "ΔW' = best rank-k of mean{w_t x_t : sign(w_t x_t) = elected sign}, x_t = the largest entries of ΔW_t",
  source: "Yadav et al., TIES-Merging (arXiv 2306.01708); PEFT 0.21",
  parameters: [DENSITY, MAJORITY_SIGN_METHOD],
  sparsifier: (entries, _tensor, { density }) => keepLargest(entries, density as number),
  rule: ({ majority_sign_method, peft_compatible }) => ({
    rule: "elect",
    sign: majority_sign_method as "total" | "frequency",
    unweightedVote: peft_compatible as boolean,
  }),
};

export const ties: ModuleMethod = elementwiseMethod({
  ...TIES,
  name: "ties",
  title: "TIES",
  summary:
    "Keeps each adapter's largest entries, elects a sign for every entry and averages those that have it. " +
    "Take it when adapters contradict each other.",
  peftMergesFactors: true,
});

export const tiesSvd: ModuleMethod = elementwiseMethod({
  ...TIES,
  name: "ties_svd",
  title: "TIES on deltas",
  summary:
    "TIES on the entries of the deltas, cut to a rank. The same as ties unless peft_compatible is set.",
  peftMergesFactors: false,
});
