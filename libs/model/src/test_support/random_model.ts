import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gaussians } from "@lora-loom/testing";

/** A weight in memory; its values are exactly representable in float32. */
export interface TestWeight {
  readonly shape: readonly number[];
  readonly values: Float64Array<ArrayBuffer>;
}

/** A small model with random weights: `config.json` as it would be on disk, and every tensor. */
export interface TestModel {
  readonly config: TestConfig;
  readonly weights: ReadonlyMap<string, TestWeight>;
}

/** The keys of `config.json` that the oracle reads; tests add others. */
export interface TestConfig {
  readonly [key: string]: unknown;
  readonly architectures: readonly string[];
  readonly num_hidden_layers: number;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim: number;
  readonly vocab_size: number;
  readonly rms_norm_eps: number;
  readonly tie_word_embeddings: boolean;
  readonly attention_bias?: boolean;
  readonly mlp_bias?: boolean;
  readonly rope_theta?: number;
}

/** Two layers, three query heads to each of two key/value heads, and sizes that are no powers of two. */
export const SMALL_CONFIG: TestConfig = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  num_hidden_layers: 2,
  hidden_size: 20,
  intermediate_size: 28,
  num_attention_heads: 6,
  num_key_value_heads: 2,
  head_dim: 12,
  vocab_size: 37,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 500,
  tie_word_embeddings: false,
};

/** Random weights for a configuration, with biases and norms that are not trivial where its class has them. */
export function randomModel(config: TestConfig, seed: number): TestModel {
  const weights = new Map<string, TestWeight>();
  let stream = seed;
  const add = (name: string, shape: readonly number[], scale: number, offset = 0) => {
    const count = shape.reduce((product, size) => product * size, 1);
    const values = gaussians(count, stream++).map((value) => Math.fround(offset + scale * value));
    weights.set(name, { shape, values });
  };
  const linear = (name: string, out: number, inner: number, bias: boolean) => {
    add(`${name}.weight`, [out, inner], 1 / Math.sqrt(inner));
    if (bias) add(`${name}.bias`, [out], 0.3);
  };
  const { hidden_size: hidden, intermediate_size: mlp, head_dim } = config;
  const queryWidth = config.num_attention_heads * head_dim, keyWidth = config.num_key_value_heads * head_dim;
  const attentionBias = config.attention_bias ?? false, mlpBias = config.mlp_bias ?? false;
  const projectionBias = attentionBias || config.architectures[0] === "Qwen2ForCausalLM";
  add("model.embed_tokens.weight", [config.vocab_size, hidden], 1);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const prefix = `model.layers.${layer}`;
    linear(`${prefix}.self_attn.q_proj`, queryWidth, hidden, projectionBias);
    linear(`${prefix}.self_attn.k_proj`, keyWidth, hidden, projectionBias);
    linear(`${prefix}.self_attn.v_proj`, keyWidth, hidden, projectionBias);
    linear(`${prefix}.self_attn.o_proj`, hidden, queryWidth, attentionBias);
    linear(`${prefix}.mlp.gate_proj`, mlp, hidden, mlpBias);
    linear(`${prefix}.mlp.up_proj`, mlp, hidden, mlpBias);
    linear(`${prefix}.mlp.down_proj`, hidden, mlp, mlpBias);
    if (config.architectures[0] === "Qwen3ForCausalLM") {
      add(`${prefix}.self_attn.q_norm.weight`, [head_dim], 0.2, 1);
      add(`${prefix}.self_attn.k_norm.weight`, [head_dim], 0.2, 1);
    }
    add(`${prefix}.input_layernorm.weight`, [hidden], 0.2, 1);
    add(`${prefix}.post_attention_layernorm.weight`, [hidden], 0.2, 1);
  }
  add("model.norm.weight", [hidden], 0.2, 1);
  if (!config.tie_word_embeddings) add("lm_head.weight", [config.vocab_size, hidden], 1 / Math.sqrt(hidden));
  return { config, weights };
}

/** Writes a model as a Hugging Face folder with one float32 `model.safetensors`. */
export async function writeModel(directory: string, { config, weights }: TestModel): Promise<void> {
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, "config.json"), JSON.stringify(config));
  await writeFile(join(directory, "model.safetensors"), safetensorsBytes(weights));
}

/** The safetensors format, written out: header length, JSON header, data. */
export function safetensorsBytes(weights: ReadonlyMap<string, TestWeight>): Uint8Array {
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const [name, { shape, values }] of weights) {
    header[name] = { dtype: "F32", shape, data_offsets: [end, end += 4 * values.length] };
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const padding = (8 - text.length % 8) % 8;
  const bytes = new Uint8Array(8 + text.length + padding + end).fill(32);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length + padding), true);
  bytes.set(text, 8);
  let at = 8 + text.length + padding;
  for (const { values } of weights.values()) {
    bytes.set(new Uint8Array(Float32Array.from(values).buffer), at);
    at += 4 * values.length;
  }
  return bytes;
}
