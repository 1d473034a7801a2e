import { coreMethod, noiseOf } from "../datafree/core_method.ts";
import { decompose, leading, multiply, scale, transpose, weightedSum } from "../datafree/matrix.ts";
import { sumOfCores } from "../datafree/core_space.ts";
import { MergeError } from "../errors.ts";
import type { ModuleMethod } from "./method.ts";
import type { NumberParameter } from "./parameters.ts";

const PROTECTED: NumberParameter = {
  name: "protected",
  type: "integer",
  minimum: 0,
  default: 0,
  help:
    "the adapter whose input directions the others must leave alone (the style), counted from 0 as in adapters.0",
};

const MU: NumberParameter = {
  name: "mu",
  type: "number",
  minimum: 0,
  keywords: ["hard"],
  default: "hard",
  help:
    "how strictly the others are projected: 0 is the plain sum, hard removes the protected directions altogether",
  formula: "factor μ/(1 + μ); hard: 1",
};

const DIRECTIONS: NumberParameter = {
  name: "directions",
  type: "integer",
  minimum: 1,
  help: "how many of the protected adapter's leading input directions are protected",
  defaultText: "all that it has",
};

export const npLora: ModuleMethod = coreMethod({
  name: "np_lora",
  title: "NP-LoRA",
  summary:
    "Keeps one adapter as it is and adds of the others only what does not use its input directions. Made for a style " +
    "and a subject; here any number of others.",
  formula:
    "V: leading right singular vectors of ΔW_p; ΔW' = w_p ΔW_p + Σ_{t≠p} w_t ΔW_t (I − μ/(1 + μ) V Vᵀ)",
  source: "Chen et al., NP-LoRA (arXiv 2511.11051)",
  parameters: [PROTECTED, MU, DIRECTIONS],
  check({ adapters }, parameters) {
    if ((parameters.protected as number) < adapters) return;
    throw new MergeError(
      "parameter_range",
      `np_lora takes the position of an adapter as protected, 0 to ${
        adapters - 1
      }, found ${parameters.protected}`,
      `choose another protected: ${PROTECTED.help}`,
      "parameters.protected",
    );
  },
  merge({ sources, left: { device } }, { parameters }) {
    const style = sources.find(({ adapter }) => adapter === parameters.protected);
    // Where the protected adapter lacks the module there is nothing to protect.
    if (!style) return { core: sumOfCores(sources) };
    const mu = parameters.mu === "hard" ? Infinity : parameters.mu as number;
    const strength = mu === Infinity ? 1 : mu / (1 + mu);
    const count = parameters.directions as number | undefined ?? Infinity;
    const { right } = leading(decompose(style.core, noiseOf(device)), count);
    const others = sumOfCores([{ ...style, weight: 0 }, ...sources.filter((source) => source !== style)]);
    const onProtected = multiply(multiply(others, transpose(right)), right);
    return { core: weightedSum([scale(style.core, style.weight), others, onProtected], [1, 1, -strength]) };
  },
});
