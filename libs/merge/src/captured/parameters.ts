import { COMMON_PARAMETERS } from "../calibrated/parameters.ts";
import type { ParameterSpec } from "../methods/parameters.ts";

/** Parameters of `iteris` that say nothing of how the model is run, so that they hold for captures too. */
export const CAPTURED_PARAMETERS: readonly ParameterSpec[] = [
  ...COMMON_PARAMETERS.filter(({ name }) => name === "rank" || name === "truncation"),
  {
    name: "alpha",
    type: "number",
    minimum: 0,
    default: 1e-4,
    help:
      "Strength of the regulariser, relative to the norm of each task's Gram matrix; a number, for captures do not say which rows are one sample.",
  },
  {
    name: "adaptive_weights",
    type: "choice",
    choices: ["full", "delta", "none"],
    defaultText: "full with base_model, else delta",
    help:
      "λ_i: full needs base_model, whose weights W0 are read; none needs the inputs themselves, not Gram matrices.",
  },
];
