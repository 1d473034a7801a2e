import { coreMethod } from "../datafree/core_method.ts";
import { scale } from "../datafree/matrix.ts";
import { sumOfCores } from "../datafree/core_space.ts";
import { layerPosition } from "../datafree/layers.ts";
import type { ModuleMethod } from "./method.ts";
import type { NumberParameter } from "./parameters.ts";

const ALPHA: NumberParameter = {
  name: "alpha",
  type: "number",
  keywords: ["1/T"],
  default: "1/T",
  help: "factor of the first layer; 1/T makes it the mean of the adapters",
};

const BETA: NumberParameter = {
  name: "beta",
  type: "number",
  keywords: ["1-1/T"],
  default: "1-1/T",
  help: "what the factor grows by up to the last layer; 1-1/T makes that the sum of the adapters",
};

export const lines: ModuleMethod = coreMethod({
  name: "lines",
  title: "LiNeS",
  summary:
    "The weighted sum, growing linearly with the depth of the layer: shallow layers, which all tasks share, stay closer " +
    "to the base model. Modules outside numbered layers count as shallow.",
  formula: "ΔW' = (α + β (ℓ − 1)/(L − 1)) Σ w_t ΔW_t in layer ℓ of L",
  source: "Wang et al., LiNeS (arXiv 2410.17146)",
  parameters: [ALPHA, BETA],
  merge({ sources }, { parameters, module, modules, adapters }) {
    const alpha = parameters.alpha === "1/T" ? 1 / adapters : parameters.alpha as number;
    const beta = parameters.beta === "1-1/T" ? 1 - 1 / adapters : parameters.beta as number;
    const factor = alpha + beta * layerPosition(module, modules);
    return { core: scale(sumOfCores(sources), factor), figures: { layer_factor: factor } };
  },
});
