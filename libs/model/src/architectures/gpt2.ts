import * as v from "valibot";
import type { Architecture } from "../architecture.ts";
import { parseActivation } from "../config.ts";
import { parseWith, refuseQuantised, unsupported } from "../config_errors.ts";

const size = v.pipe(v.number(), v.integer(), v.minValue(1));

const schema = v.looseObject({
  n_layer: size,
  n_embd: size,
  n_head: size,
  n_inner: v.nullish(size),
  n_positions: v.optional(size, 1024),
  vocab_size: size,
  layer_norm_epsilon: v.optional(v.pipe(v.number(), v.gtValue(0)), 1e-5),
  activation_function: v.optional(v.string(), "gelu_new"),
  scale_attn_weights: v.optional(v.boolean(), true),
  scale_attn_by_inverse_layer_idx: v.optional(v.boolean(), false),
  add_cross_attention: v.optional(v.boolean(), false),
  tie_word_embeddings: v.optional(v.boolean(), true),
  quantization_config: v.optional(v.unknown()),
});

/**
 * GPT-2: learned positions, layer norms with biases, an MLP without a gate, one module for queries, keys and values. Its weights are
 * stored transposed (`Conv1D`), which PEFT's adapters call `fan_in_fan_out`; their own factors are not.
 */
export const gpt2: Architecture = {
  modelType: "gpt2",
  className: "GPT2LMHeadModel",
  embeddings: "transformer.wte",
  positions: "transformer.wpe",
  finalNorm: "transformer.ln_f",
  head: "lm_head",
  layerPrefix: (layer) => `transformer.h.${layer}.`,
  linears: {
    query: "attn.c_attn",
    key: "attn.c_attn",
    value: "attn.c_attn",
    output: "attn.c_proj",
    up: "mlp.c_fc",
    down: "mlp.c_proj",
  },
  norms: { attention: "ln_1", mlp: "ln_2" },
  normKind: "layer",
  transposed: true,
  hasBias: () => true,
  parseConfig(json, where) {
    const raw = parseWith(schema, json, where);
    refuseQuantised(raw.quantization_config, where);
    for (const key of ["scale_attn_by_inverse_layer_idx", "add_cross_attention"] as const) {
      if (raw[key]) throw unsupported(key, "true", "false", where);
    }
    const headDim = raw.n_embd / raw.n_head;
    if (headDim % 4 !== 0 || headDim > 256) {
      throw unsupported("n_head", `${raw.n_head}`, "heads of a multiple of 4, at most 256", where);
    }
    return {
      layers: raw.n_layer,
      hiddenSize: raw.n_embd,
      mlpSize: raw.n_inner ?? 4 * raw.n_embd,
      queryHeads: raw.n_head,
      keyValueHeads: raw.n_head,
      headDim,
      vocabularySize: raw.vocab_size,
      maxPositions: raw.n_positions,
      slidingWindow: undefined,
      normEpsilon: raw.layer_norm_epsilon,
      rope: undefined,
      activation: parseActivation(raw.activation_function, where),
      ...(raw.scale_attn_weights ? {} : { attentionScale: 1 }),
      tiedEmbeddings: raw.tie_word_embeddings,
      attentionBias: true,
      mlpBias: true,
    };
  },
};
