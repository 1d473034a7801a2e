import type { ModelFamily } from "../model_family.ts";
import { ModelError } from "../errors.ts";
import { parseT5Config } from "./config.ts";
import { t5Stages } from "./stages.ts";
import { T5Layers } from "./layers.ts";
import { T5Model } from "./t5_model.ts";
import { loadT5Weights } from "./weights.ts";

/** T5, T5 v1.1 and FLAN-T5 (arXiv 1910.10683, 2002.05202, 2210.11416). */
export const t5: ModelFamily = {
  modelType: "t5",
  className: "T5ForConditionalGeneration",
  shapes(json, where) {
    const config = parseT5Config(json, where);
    return {
      stages: t5Stages(config),
      layers: config.encoderLayers + config.decoderLayers,
      hiddenSize: config.hiddenSize,
      vocabularySize: config.vocabularySize,
      keyValueWidth: 2 * config.queryHeads * config.headDim,
      streamable: false,
    };
  },
  async open(device, json, where, stored, { residency }) {
    if (residency === "streamed") {
      throw new ModelError(
        "unsupported_residency",
        "residency is streamed, and T5's weights can only be resident",
        "leave residency out",
        where,
      );
    }
    const config = parseT5Config(json, where);
    return new T5Model(new T5Layers(device, config, await loadT5Weights(device, config, stored)));
  },
};
