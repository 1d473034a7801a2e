import { RANK_FORMS } from "../plan/rank_policy.ts";
import type { BooleanParameter, ChoiceParameter, NumberParameter } from "../methods/parameters.ts";

/** Rank of the result, where the default is PEFT's. */
export const RANK: NumberParameter = {
  name: "rank",
  type: "integer",
  minimum: 1,
  forms: RANK_FORMS,
  help: "rank of the merged adapter",
  defaultText: "the largest rank among the adapters",
};

/** The part of the entries that survives. */
export const DENSITY: NumberParameter = {
  name: "density",
  type: "number",
  minimum: 0,
  exclusiveMinimum: true,
  maximum: 1,
  default: 0.5,
  help: "part of the entries that is kept",
};

/** How TIES finds the sign that an entry of the result has. */
export const MAJORITY_SIGN_METHOD: ChoiceParameter = {
  name: "majority_sign_method",
  type: "choice",
  choices: ["total", "frequency"],
  default: "total",
  help: "elect the sign of the sum of the entries, or the sign that more of them have",
};

/** Whether to do what PEFT does where that differs. */
export const PEFT_COMPATIBLE: BooleanParameter = {
  name: "peft_compatible",
  type: "boolean",
  default: false,
  help: "give what PEFT 0.21's add_weighted_adapter gives under this name",
};
