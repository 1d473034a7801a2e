import type { Architecture } from "../architecture.ts";
import { parseDecoderConfig } from "../config.ts";

/** Llama 1 to 3 and models of the same make (arXiv 2302.13971, 2407.21783). */
export const llama: Architecture = {
  modelType: "llama",
  className: "LlamaForCausalLM",
  embeddings: "model.embed_tokens",
  finalNorm: "model.norm",
  head: "lm_head",
  layerPrefix: (layer) => `model.layers.${layer}.`,
  linears: {
    query: "self_attn.q_proj",
    key: "self_attn.k_proj",
    value: "self_attn.v_proj",
    output: "self_attn.o_proj",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
  },
  norms: { attention: "input_layernorm", mlp: "post_attention_layernorm" },
  hasBias: (role, config) =>
    role === "gate" || role === "up" || role === "down" ? config.mlpBias : config.attentionBias,
  parseConfig: parseDecoderConfig,
};
