import { DENSITY } from "../datafree/common_parameters.ts";
import { elementwiseMethod } from "../datafree/elementwise.ts";
import { keepByMagnitude } from "../datafree/sparsify.ts";
import { EntryRandom } from "../datafree/threefry.ts";
import { MergeError } from "../errors.ts";
import type { ModuleMethod, Parameters } from "./method.ts";
import type { ChoiceParameter, NumberParameter } from "./parameters.ts";

const EPSILON: NumberParameter = {
  name: "epsilon",
  type: "number",
  minimum: 0,
  maximum: 0.5,
  default: 0.1,
  help:
    "how far the probability of being kept departs from density for the smallest and the largest entry of a row",
  formula: "0 < density − ε, density + ε ≤ 1",
};

const ELECTION: ChoiceParameter = {
  name: "majority_sign_method",
  type: "choice",
  choices: ["total", "frequency", "none"],
  default: "total",
  help: "elect signs and average as TIES does (total, frequency), or add everything up (none)",
};

function checkRange({ density, epsilon }: Parameters): void {
  const [d, e] = [density as number, epsilon as number];
  if (d - e > 0 && d + e <= 1) return;
  throw new MergeError(
    "parameters_conflict",
    `density ${d} and epsilon ${e} make probabilities from ${d - e} to ${
      d + e
    }, expected them between 0 and 1`,
    `choose epsilon below ${Math.min(d, 1 - d)}, or another density`,
    "parameters",
  );
}

const method = elementwiseMethod({
  name: "della",
  title: "DELLA",
  summary: "DARE that drops small entries more often than large ones, followed by TIES' election of signs.",
  formula:
    "within a row of ΔW_t, p grows linearly with the rank of the magnitude from d − ε to d + ε; x_t = m ⊙ ΔW_t / p, " +
    "entries of m being 1 with probability p, else 0; ΔW' = best rank-k of mean{w_t x_t : sign(w_t x_t) = elected sign}",
  source: "Deep et al., DELLA-Merging (arXiv 2406.11617)",
  parameters: [DENSITY, EPSILON, ELECTION],
  peftMergesFactors: false,
  sparsifier: ({ columns }, { seed, module, adapter, tensor }, { density, epsilon }) =>
    keepByMagnitude(
      new EntryRandom(seed, module, adapter, tensor),
      columns,
      density as number,
      epsilon as number,
    ),
  rule: ({ majority_sign_method: sign }) =>
    sign === "none"
      ? { rule: "sum" }
      : { rule: "elect", sign: sign as "total" | "frequency", unweightedVote: false },
});

export const della: ModuleMethod = {
  ...method,
  parameters: method.parameters.filter(({ name }) => name !== "peft_compatible"),
  check(plan, parameters) {
    checkRange(parameters);
    method.check?.(plan, parameters);
  },
};
