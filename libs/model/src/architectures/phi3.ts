import type { Architecture } from "../architecture.ts";
import { parseDecoderConfig, slidingThroughout } from "../config.ts";
import { llama } from "./llama.ts";

/**
 * Phi-3, Phi-3.5 and Phi-4 mini (arXiv 2404.14219): a Llama with one module for queries, keys and values, and one for the MLP's
 * two inputs.
 */
export const phi3: Architecture = {
  ...llama,
  modelType: "phi3",
  className: "Phi3ForCausalLM",
  linears: {
    query: "self_attn.qkv_proj",
    key: "self_attn.qkv_proj",
    value: "self_attn.qkv_proj",
    output: "self_attn.o_proj",
    gate: "mlp.gate_up_proj",
    up: "mlp.gate_up_proj",
    down: "mlp.down_proj",
  },
  hasBias: () => false,
  parseConfig: (json, where) => slidingThroughout(parseDecoderConfig(json, where)),
};
