import type { Architecture } from "../architecture.ts";
import { llama } from "./llama.ts";
import { qwen2 } from "./qwen2.ts";

/** Dense Qwen3 (arXiv 2505.09388): a Llama with norms of queries and keys, head by head. */
export const qwen3: Architecture = {
  ...llama,
  modelType: "qwen3",
  className: "Qwen3ForCausalLM",
  norms: { ...llama.norms, query: "self_attn.q_norm", key: "self_attn.k_norm" },
  parseConfig: qwen2.parseConfig,
};
