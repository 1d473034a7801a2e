import type { ModelFamily } from "../model_family.ts";
import { parseT5Config } from "./config.ts";
import { T5Layers } from "./layers.ts";
import { T5Model } from "./t5_model.ts";
import { loadT5Weights } from "./weights.ts";

/** T5, T5 v1.1 and FLAN-T5 (arXiv 1910.10683, 2002.05202, 2210.11416). */
export const t5: ModelFamily = {
  modelType: "t5",
  className: "T5ForConditionalGeneration",
  async open(device, json, where, stored) {
    const config = parseT5Config(json, where);
    return new T5Model(new T5Layers(device, config, await loadT5Weights(device, config, stored)));
  },
};
