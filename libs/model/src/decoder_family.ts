import type { Architecture } from "./architecture.ts";
import { Decoder } from "./decoder.ts";
import { DecoderModel } from "./decoder_model.ts";
import { decoderStages } from "./decoder_stages.ts";
import { loadWeights } from "./load_weights.ts";
import type { ModelFamily } from "./model_family.ts";
import { chooseResidency, parameterCount } from "./residency.ts";
import { streamWeights } from "./stream_weights.ts";

const DEFAULT_KEY_VALUE_BYTES = 4 * 2 ** 30;

/** The family of decoders that an architecture describes. */
export function decoderFamily(architecture: Architecture): ModelFamily {
  const { modelType, className } = architecture;
  return {
    modelType,
    className,
    shapes(json, where) {
      const config = architecture.parseConfig(json, where);
      return {
        stages: decoderStages(architecture, config),
        layers: config.layers,
        hiddenSize: config.hiddenSize,
        vocabularySize: config.vocabularySize,
        keyValueWidth: 2 * config.keyValueHeads * config.headDim,
        streamable: true,
      };
    },
    async open(device, json, where, stored, options) {
      const { rotaryFrequencies = "exact", residency = "auto", keyValueBytes = DEFAULT_KEY_VALUE_BYTES } =
        options;
      const parsed = architecture.parseConfig(json, where);
      const rope = parsed.rope && { ...parsed.rope, roundToBfloat16: rotaryFrequencies === "bfloat16" };
      const config = { ...parsed, rope };
      const put = chooseResidency(residency, device, parameterCount(stored)) === "streamed"
        ? streamWeights
        : loadWeights;
      const weights = await put(device, architecture, config, stored);
      return new DecoderModel(new Decoder(device, architecture, config, weights), keyValueBytes);
    },
  };
}
