import type { Architecture } from "../architecture.ts";
import { parseDecoderConfig, slidingThroughout } from "../config.ts";
import { llama } from "./llama.ts";

/** Mistral (arXiv 2310.06825): a Llama whose attention may reach back only so far. */
export const mistral: Architecture = {
  ...llama,
  modelType: "mistral",
  className: "MistralForCausalLM",
  hasBias: () => false,
  parseConfig: (json, where) => slidingThroughout(parseDecoderConfig(json, where)),
};
