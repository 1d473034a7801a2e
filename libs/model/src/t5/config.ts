import * as v from "valibot";
import { parseWith, refuseQuantised, unsupported } from "../config_errors.ts";
import type { Activation } from "../ops/activation.ts";

/** Sizes and constants of a T5 (arXiv 1910.10683) or T5 v1.1. */
export interface T5Config {
  readonly encoderLayers: number;
  readonly decoderLayers: number;
  readonly hiddenSize: number;
  readonly mlpSize: number;
  readonly queryHeads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  /** T5 leaves its scores unscaled. */
  readonly attentionScale: 1;
  readonly vocabularySize: number;
  /** Positions are relative, so there is no longest sequence. */
  readonly maxPositions: number;
  readonly normEpsilon: number;
  readonly activation: Activation;
  /** Whether the MLP multiplies an activated projection by a second one. */
  readonly gated: boolean;
  readonly distanceBuckets: number;
  readonly maxDistance: number;
  /** Factor of the last hidden states before the head. */
  readonly outputScale: number;
  /** What the decoder reads first. */
  readonly startToken: number;
}

const size = v.pipe(v.number(), v.integer(), v.minValue(1));

const configSchema = v.looseObject({
  d_model: size,
  d_kv: size,
  d_ff: size,
  num_layers: size,
  num_decoder_layers: v.nullish(size),
  num_heads: size,
  vocab_size: size,
  relative_attention_num_buckets: v.optional(v.pipe(size, v.minValue(4)), 32),
  relative_attention_max_distance: v.optional(size, 128),
  layer_norm_epsilon: v.optional(v.pipe(v.number(), v.gtValue(0)), 1e-6),
  feed_forward_proj: v.optional(v.string(), "relu"),
  tie_word_embeddings: v.optional(v.boolean(), true),
  scale_decoder_outputs: v.nullish(v.boolean()),
  decoder_start_token_id: v.nullish(v.pipe(v.number(), v.integer(), v.minValue(0))),
  pad_token_id: v.nullish(v.pipe(v.number(), v.integer(), v.minValue(0))),
  quantization_config: v.optional(v.unknown()),
});

/** `feed_forward_proj`: `gated-gelu` means the approximation by tanh, a bare `gelu` would not. */
const MLPS: Readonly<Record<string, Pick<T5Config, "activation" | "gated">>> = {
  relu: { activation: "relu", gated: false },
  "gated-relu": { activation: "relu", gated: true },
  "gated-gelu": { activation: "gelu_tanh", gated: true },
  "gated-silu": { activation: "silu", gated: true },
  gelu_new: { activation: "gelu_tanh", gated: false },
};

/**
 * Reads the configuration of a T5.
 *
 * @throws {ModelError} `invalid_config`; `unsupported_…` for a setting that would change the mathematics
 */
export function parseT5Config(json: unknown, where: string): T5Config {
  const raw = parseWith(configSchema, json, where);
  refuseQuantised(raw.quantization_config, where);
  const mlp = MLPS[raw.feed_forward_proj];
  if (!mlp) {
    throw unsupported("feed_forward_proj", raw.feed_forward_proj, Object.keys(MLPS).join(", "), where);
  }
  if (raw.d_kv % 4 !== 0 || raw.d_kv > 256) {
    throw unsupported("d_kv", `${raw.d_kv}`, "a multiple of 4, at most 256", where);
  }
  // Since Transformers 5 the head is always called tied; before, v1.1 was known by its untied one.
  const scalesOutput = raw.scale_decoder_outputs ?? raw.tie_word_embeddings;
  return {
    encoderLayers: raw.num_layers,
    decoderLayers: raw.num_decoder_layers ?? raw.num_layers,
    hiddenSize: raw.d_model,
    mlpSize: raw.d_ff,
    queryHeads: raw.num_heads,
    keyValueHeads: raw.num_heads,
    headDim: raw.d_kv,
    attentionScale: 1,
    vocabularySize: raw.vocab_size,
    maxPositions: Infinity,
    normEpsilon: raw.layer_norm_epsilon,
    ...mlp,
    distanceBuckets: raw.relative_attention_num_buckets,
    maxDistance: raw.relative_attention_max_distance,
    outputScale: scalesOutput ? raw.d_model ** -0.5 : 1,
    startToken: raw.decoder_start_token_id ?? raw.pad_token_id ?? 0,
  };
}
