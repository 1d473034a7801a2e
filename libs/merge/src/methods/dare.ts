import { DENSITY, MAJORITY_SIGN_METHOD } from "../datafree/common_parameters.ts";
import { type ElementwiseDefinition, elementwiseMethod } from "../datafree/elementwise.ts";
import { keepAtRandom } from "../datafree/sparsify.ts";
import { EntryRandom } from "../datafree/threefry.ts";
import type { ModuleMethod } from "./method.ts";

type Part = Pick<ElementwiseDefinition, "source" | "sparsifier" | "formula" | "parameters" | "rule">;

const DARE: Pick<Part, "source" | "sparsifier"> = {
  source: "Yu et al., Language Models are Super Mario (arXiv 2311.03099); PEFT 0.21",
  sparsifier: (_entries, { seed, module, adapter, tensor }, { density }) =>
    keepAtRandom(new EntryRandom(seed, module, adapter, tensor), density as number),
};

const LINEAR: Part = {
  ...DARE,
  formula: "ΔW' = best rank-k of Σ w_t m_t ⊙ ΔW_t / d, entries of m_t being 1 with probability d, else 0",
  parameters: [DENSITY],
  rule: () => ({ rule: "sum" }),
};

const TIES: Part = {
  ...DARE,
  formula:
    "ΔW' = best rank-k of mean{w_t x_t : sign(w_t x_t) = elected sign}, x_t = m_t ⊙ ΔW_t / d, entries of m_t being 1 with probability d, else 0",
  parameters: [DENSITY, MAJORITY_SIGN_METHOD],
  rule: ({ majority_sign_method, peft_compatible }) => ({
    rule: "elect",
    sign: majority_sign_method as "total" | "frequency",
    unweightedVote: peft_compatible as boolean,
  }),
};

export const dareLinear: ModuleMethod = elementwiseMethod({
  ...LINEAR,
  name: "dare_linear",
  title: "DARE",
  summary: "Drops entries of the deltas at random, rescales the others and adds up.",
  peftMergesFactors: true,
});

export const dareLinearSvd: ModuleMethod = elementwiseMethod({
  ...LINEAR,
  name: "dare_linear_svd",
  title: "DARE on deltas",
  summary: "As dare_linear, which with peft_compatible works on A and B apart, and this does not.",
  peftMergesFactors: false,
});

export const dareTies: ModuleMethod = elementwiseMethod({
  ...TIES,
  name: "dare_ties",
  title: "DARE with TIES",
  summary:
    "Drops entries of the deltas at random, rescales the others, then elects signs and averages as TIES does.",
  peftMergesFactors: true,
});

export const dareTiesSvd: ModuleMethod = elementwiseMethod({
  ...TIES,
  name: "dare_ties_svd",
  title: "DARE with TIES on deltas",
  summary: "As dare_ties, which with peft_compatible works on A and B apart, and this does not.",
  peftMergesFactors: false,
});
