import * as v from "valibot";
import type { Architecture } from "../architecture.ts";
import { parseWith, unsupported } from "../config_errors.ts";
import { parseRope, ropeSchema } from "../rope_config.ts";
import { gemma2, parseGemma } from "./gemma2.ts";

const positive = v.pipe(v.number(), v.gtValue(0));

const schema = v.looseObject({
  sliding_window_pattern: v.optional(positive, 6),
  use_bidirectional_attention: v.nullish(v.boolean()),
  max_position_embeddings: v.optional(positive, 131072),
  rope_theta: v.optional(positive, 1e6),
  rope_local_base_freq: v.optional(positive, 1e4),
  // Since Transformers 5 by kind of layer.
  rope_parameters: v.nullish(v.looseObject({
    full_attention: v.optional(ropeSchema),
    sliding_attention: v.optional(ropeSchema),
  })),
});

/**
 * Gemma 3's language model (arXiv 2503.19786): a Gemma 2 with norms of queries and keys instead of soft caps, and with rotary
 * embedding of its own in sliding layers.
 */
export const gemma3: Architecture = {
  ...gemma2,
  modelType: "gemma3_text",
  className: "Gemma3ForCausalLM",
  norms: { ...gemma2.norms, query: "self_attn.q_norm", key: "self_attn.k_norm" },
  parseConfig(json, where) {
    const raw = parseWith(schema, json, where);
    if (raw.use_bidirectional_attention) {
      throw unsupported("use_bidirectional_attention", "true", "false", where);
    }
    const { max_position_embeddings, rope_theta, rope_parameters: rope } = raw;
    const config = parseGemma(
      { ...json as object, max_position_embeddings, rope_theta, rope_parameters: rope?.full_attention },
      where,
      (layer) => (layer + 1) % raw.sliding_window_pattern !== 0,
    );
    const local = { rope_theta: raw.rope_local_base_freq, rope_parameters: rope?.sliding_attention };
    return { ...config, slidingRope: parseRope(local, config.maxPositions, config.headDim, where) };
  },
};
