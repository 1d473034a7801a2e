import * as v from "valibot";
import { invalid, parseWith, refuseQuantised, unsupported } from "./config_errors.ts";
import { type RopeConfig, type RopeScaling, unsupportedRope } from "./rope.ts";

/** Sizes and constants of a decoder-only model, in one form for both generations of `config.json`. */
export interface DecoderConfig {
  readonly layers: number;
  readonly hiddenSize: number;
  readonly mlpSize: number;
  readonly queryHeads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly vocabularySize: number;
  /** Longest sequence that the model computes as it was made to; longer ones are refused. */
  readonly maxPositions: number;
  /** How many tokens back attention reaches, where the configuration names a limit; not every family heeds it. */
  readonly slidingWindow: number | undefined;
  /** The switch some families have for it. */
  readonly usesSlidingWindow: boolean;
  readonly normEpsilon: number;
  readonly rope: RopeConfig;
  /** Whether the output projection is the embedding matrix. */
  readonly tiedEmbeddings: boolean;
  /** Whether the attention's, and the MLP's, linear modules have biases. */
  readonly attentionBias: boolean;
  readonly mlpBias: boolean;
}

const size = v.pipe(v.number(), v.integer(), v.minValue(1));
const positive = v.pipe(v.number(), v.gtValue(0));

const ropeSchema = v.looseObject({
  rope_type: v.optional(v.string()),
  type: v.optional(v.string()),
  rope_theta: v.optional(positive),
  factor: v.optional(positive),
  low_freq_factor: v.optional(positive),
  high_freq_factor: v.optional(positive),
  original_max_position_embeddings: v.optional(size),
  partial_rotary_factor: v.optional(positive),
});

const configSchema = v.looseObject({
  num_hidden_layers: size,
  hidden_size: size,
  intermediate_size: size,
  num_attention_heads: size,
  num_key_value_heads: v.nullish(size),
  head_dim: v.nullish(size),
  vocab_size: size,
  max_position_embeddings: v.optional(size, 2048),
  rms_norm_eps: v.optional(positive, 1e-6),
  rope_theta: v.nullish(positive),
  rope_scaling: v.nullish(ropeSchema),
  rope_parameters: v.nullish(ropeSchema),
  partial_rotary_factor: v.nullish(positive),
  sliding_window: v.nullish(size),
  use_sliding_window: v.optional(v.boolean(), false),
  hidden_act: v.optional(v.string(), "silu"),
  tie_word_embeddings: v.optional(v.boolean(), false),
  attention_bias: v.optional(v.boolean(), false),
  mlp_bias: v.optional(v.boolean(), false),
  quantization_config: v.optional(v.unknown()),
});

type RawConfig = v.InferOutput<typeof configSchema>;

/**
 * Reads the configuration of a Llama-like decoder.
 *
 * @param json the parsed `config.json`
 * @param where its path, for errors
 * @throws {ModelError} `invalid_config`; `unsupported_…` for a setting that would change the mathematics
 */
export function parseDecoderConfig(json: unknown, where: string): DecoderConfig {
  const raw = parseWith(configSchema, json, where);
  refuseUnsupported(raw, where);
  const queryHeads = raw.num_attention_heads;
  const keyValueHeads = raw.num_key_value_heads ?? queryHeads;
  const headDim = raw.head_dim ?? raw.hidden_size / queryHeads;
  if (queryHeads % keyValueHeads !== 0) {
    throw invalid(
      `num_key_value_heads ${keyValueHeads} does not divide num_attention_heads ${queryHeads}`,
      where,
    );
  }
  if (headDim % 4 !== 0 || headDim > 256) {
    throw unsupported("head_dim", `${headDim}`, "a multiple of 4, at most 256", where);
  }
  return {
    layers: raw.num_hidden_layers,
    hiddenSize: raw.hidden_size,
    mlpSize: raw.intermediate_size,
    queryHeads,
    keyValueHeads,
    headDim,
    vocabularySize: raw.vocab_size,
    maxPositions: raw.max_position_embeddings,
    slidingWindow: raw.sliding_window ?? undefined,
    usesSlidingWindow: raw.use_sliding_window,
    normEpsilon: raw.rms_norm_eps,
    rope: parseRope(raw, where),
    tiedEmbeddings: raw.tie_word_embeddings,
    attentionBias: raw.attention_bias,
    mlpBias: raw.mlp_bias,
  };
}

/** For families with sliding-window attention: sequences within the window do not notice it, longer ones are refused. */
export function withinWindow(config: DecoderConfig): DecoderConfig {
  return { ...config, maxPositions: Math.min(config.maxPositions, config.slidingWindow ?? Infinity) };
}

function refuseUnsupported(raw: RawConfig, where: string): void {
  refuseQuantised(raw.quantization_config, where);
  if (raw.hidden_act !== "silu") throw unsupported("hidden_act", raw.hidden_act, "silu", where);
  const partial = raw.rope_parameters?.partial_rotary_factor ?? raw.partial_rotary_factor ?? 1;
  if (partial !== 1) throw unsupported("partial_rotary_factor", `${partial}`, "1", where);
}

/** Older files have `rope_theta` beside `rope_scaling`, newer ones have all of it in `rope_parameters`. */
function parseRope(raw: RawConfig, where: string): RopeConfig {
  const parameters = raw.rope_parameters ?? raw.rope_scaling ?? {};
  const theta = parameters.rope_theta ?? raw.rope_theta ?? 10000;
  return { theta, scaling: parseScaling(parameters, raw.max_position_embeddings, where) };
}

function parseScaling(
  raw: v.InferOutput<typeof ropeSchema>,
  maxPositions: number,
  where: string,
): RopeScaling {
  const type = raw.rope_type ?? raw.type ?? "default";
  const required = (key: "factor" | "low_freq_factor" | "high_freq_factor") => {
    const value = raw[key];
    if (value === undefined) throw invalid(`rotary scaling "${type}" needs ${key}`, where);
    return value;
  };
  switch (type) {
    case "default":
      return { type };
    case "linear":
      return { type, factor: required("factor") };
    case "llama3":
      return {
        type,
        factor: required("factor"),
        lowFrequencyFactor: required("low_freq_factor"),
        highFrequencyFactor: required("high_freq_factor"),
        originalLength: raw.original_max_position_embeddings ?? maxPositions,
      };
    default:
      throw unsupportedRope(type, where);
  }
}
