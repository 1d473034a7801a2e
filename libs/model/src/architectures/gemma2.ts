import * as v from "valibot";
import type { Architecture } from "../architecture.ts";
import { type DecoderConfig, parseDecoderConfig } from "../config.ts";
import { parseWith } from "../config_errors.ts";
import { llama } from "./llama.ts";

const positive = v.pipe(v.number(), v.gtValue(0));

/** What the Gemmas share in `config.json` beyond a Llama, under names that other families lack. */
const gemmaSchema = v.looseObject({
  head_dim: v.optional(positive, 256),
  query_pre_attn_scalar: v.optional(positive, 256),
  attn_logit_softcapping: v.nullish(positive),
  final_logit_softcapping: v.nullish(positive),
  sliding_window: v.optional(v.nullable(positive), 4096),
  layer_types: v.nullish(v.array(v.picklist(["sliding_attention", "full_attention"]))),
});

/**
 * Reads what the Gemmas share.
 *
 * @param json with every key that the family's own reading has filled in
 * @param slides which layers slide where `layer_types` does not tell
 */
export function parseGemma(
  json: object,
  where: string,
  slides: (layer: number) => boolean,
): DecoderConfig {
  const raw = parseWith(gemmaSchema, json, where);
  const defaults = { hiddenAct: "gelu_pytorch_tanh", tiedEmbeddings: true };
  const config = parseDecoderConfig({ ...json, head_dim: raw.head_dim }, where, defaults);
  return {
    ...config,
    slidingWindow: raw.sliding_window ?? undefined,
    slidingLayers: Array.from(
      { length: config.layers },
      (_, layer) => raw.layer_types ? raw.layer_types[layer] === "sliding_attention" : slides(layer),
    ),
    attentionScale: raw.query_pre_attn_scalar ** -0.5,
    embeddingScale: Math.sqrt(config.hiddenSize),
    ...(raw.attn_logit_softcapping && { attentionSoftCap: raw.attn_logit_softcapping }),
    ...(raw.final_logit_softcapping && { outputSoftCap: raw.final_logit_softcapping }),
  };
}

/**
 * Gemma 2 (arXiv 2408.00118): norms before and after attention and MLP, whose stored gains lack 1; scaled embeddings; soft caps on
 * scores and logits; every other layer slides.
 */
export const gemma2: Architecture = {
  ...llama,
  modelType: "gemma2",
  className: "Gemma2ForCausalLM",
  norms: {
    attention: "input_layernorm",
    attentionOut: "post_attention_layernorm",
    mlp: "pre_feedforward_layernorm",
    mlpOut: "post_feedforward_layernorm",
  },
  gainOffset: 1,
  parseConfig: (json, where) =>
    parseGemma(
      { attn_logit_softcapping: 50, final_logit_softcapping: 30, ...json as object },
      where,
      (layer) => layer % 2 === 0,
    ),
};
