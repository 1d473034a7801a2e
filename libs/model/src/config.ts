import * as v from "valibot";
import { invalid, parseWith, refuseQuantised, unsupported } from "./config_errors.ts";
import type { Activation } from "./ops/activation.ts";
import type { RopeConfig } from "./rope.ts";
import { parseRope, ropeSchema } from "./rope_config.ts";

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
  /** How many tokens attention reaches back in sliding layers, the token itself included. */
  readonly slidingWindow: number | undefined;
  /** Which layers slide; absent: none. */
  readonly slidingLayers?: readonly boolean[];
  readonly normEpsilon: number;
  /** Absent where positions are learned. */
  readonly rope: RopeConfig | undefined;
  /** Of sliding layers, where it is another. */
  readonly slidingRope?: RopeConfig;
  readonly activation: Activation;
  /** Factor of scores. Default 1/√headDim. */
  readonly attentionScale?: number;
  /** Bounds of scores and of logits: x becomes c·tanh(x / c). Default none. */
  readonly attentionSoftCap?: number;
  readonly outputSoftCap?: number;
  /** Factor of embeddings on their way in. Default 1. */
  readonly embeddingScale?: number;
  /** Whether the output projection is the embedding matrix. */
  readonly tiedEmbeddings: boolean;
  /** Whether the attention's, and the MLP's, linear modules have biases. */
  readonly attentionBias: boolean;
  readonly mlpBias: boolean;
}

const size = v.pipe(v.number(), v.integer(), v.minValue(1));
const positive = v.pipe(v.number(), v.gtValue(0));

const configSchema = v.looseObject({
  num_hidden_layers: size,
  hidden_size: size,
  intermediate_size: size,
  num_attention_heads: size,
  num_key_value_heads: v.nullish(size),
  head_dim: v.nullish(size),
  vocab_size: size,
  max_position_embeddings: v.optional(size, 2048),
  original_max_position_embeddings: v.nullish(size),
  rms_norm_eps: v.optional(positive, 1e-6),
  rope_theta: v.nullish(positive),
  rope_scaling: v.nullish(ropeSchema),
  rope_parameters: v.nullish(ropeSchema),
  partial_rotary_factor: v.nullish(positive),
  sliding_window: v.nullish(size),
  hidden_act: v.nullish(v.string()),
  hidden_activation: v.nullish(v.string()),
  tie_word_embeddings: v.nullish(v.boolean()),
  attention_bias: v.optional(v.boolean(), false),
  mlp_bias: v.optional(v.boolean(), false),
  quantization_config: v.optional(v.unknown()),
});

/** Settings that `config.json` leaves out where they are the family's usual ones. */
export interface FamilyDefaults {
  readonly hiddenAct: string;
  readonly tiedEmbeddings: boolean;
}

type RawConfig = v.InferOutput<typeof configSchema>;

/**
 * Reads the configuration of a decoder-only model.
 *
 * @param json the parsed `config.json`
 * @param where its path, for errors
 * @param defaults what the family means by keys that are not there
 * @throws {ModelError} `invalid_config`; `unsupported_…` for a setting that would change the mathematics
 */
export function parseDecoderConfig(
  json: unknown,
  where: string,
  defaults: FamilyDefaults = { hiddenAct: "silu", tiedEmbeddings: false },
): DecoderConfig {
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
    normEpsilon: raw.rms_norm_eps,
    rope: parseRope(raw, raw.max_position_embeddings, headDim, where),
    activation: parseActivation(raw.hidden_activation ?? raw.hidden_act ?? defaults.hiddenAct, where),
    tiedEmbeddings: raw.tie_word_embeddings ?? defaults.tiedEmbeddings,
    attentionBias: raw.attention_bias,
    mlpBias: raw.mlp_bias,
  };
}

/** How far back a layer's attention reaches; nothing where it reaches to the start. */
export function windowOf(
  { slidingLayers, slidingWindow }: Pick<DecoderConfig, "slidingLayers" | "slidingWindow">,
  layer: number,
): number | undefined {
  return slidingLayers?.[layer] ? slidingWindow : undefined;
}

/** For families all of whose layers slide where the configuration names a window. */
export function slidingThroughout(config: DecoderConfig): DecoderConfig {
  return config.slidingWindow === undefined
    ? config
    : { ...config, slidingLayers: new Array<boolean>(config.layers).fill(true) };
}

/** Names of activations in configurations. */
const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  silu: "silu",
  gelu_new: "gelu_tanh",
  gelu_pytorch_tanh: "gelu_tanh",
  relu: "relu",
};

/** @throws {ModelError} `unsupported_hidden_act` */
export function parseActivation(name: string, where: string): Activation {
  const activation = ACTIVATIONS[name];
  if (activation) return activation;
  throw unsupported("hidden_act", name, Object.keys(ACTIVATIONS).join(", "), where);
}

function refuseUnsupported(raw: RawConfig, where: string): void {
  refuseQuantised(raw.quantization_config, where);
  const partial = raw.rope_parameters?.partial_rotary_factor ?? raw.partial_rotary_factor ?? 1;
  if (partial !== 1) throw unsupported("partial_rotary_factor", `${partial}`, "1", where);
}
