import type { Architecture } from "../architecture.ts";
import { parseDecoderConfig, withinWindow } from "../config.ts";
import { llama } from "./llama.ts";

/** Qwen2 and Qwen2.5 (arXiv 2407.10671): a Llama with biases of queries, keys and values. */
export const qwen2: Architecture = {
  ...llama,
  modelType: "qwen2",
  className: "Qwen2ForCausalLM",
  hasBias: (role) => role === "query" || role === "key" || role === "value",
  parseConfig(json, where) {
    const config = parseDecoderConfig(json, where);
    return config.usesSlidingWindow ? withinWindow(config) : config;
  },
};
