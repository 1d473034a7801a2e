/** Sizes of one linear module: its weight is [out, in]. */
export interface LinearShape {
  readonly name: string;
  readonly inFeatures: number;
  readonly outFeatures: number;
}

/** Sizes of a Llama. */
export interface LlamaShape {
  readonly hidden: number;
  readonly mlp: number;
  readonly layers: number;
  readonly queryHeads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly vocabulary: number;
  readonly tied: boolean;
}

/** Of the example, Llama-3.2-1B and 3B, and Llama-2-7B and 70B. */
export const LLAMA_SHAPES = {
  tiny: shape(256, 688, 4, [4, 2, 64], 2048, true),
  "1b": shape(2048, 8192, 16, [32, 8, 64], 128256, true),
  "3b": shape(3072, 8192, 28, [24, 8, 128], 128256, true),
  "7b": shape(4096, 11008, 32, [32, 32, 128], 32000, false),
  "70b": shape(8192, 28672, 80, [64, 8, 128], 32000, false),
} as const satisfies Record<string, LlamaShape>;

function shape(
  hidden: number,
  mlp: number,
  layers: number,
  [queryHeads, keyValueHeads, headDim]: readonly [number, number, number],
  vocabulary: number,
  tied: boolean,
): LlamaShape {
  return { hidden, mlp, layers, queryHeads, keyValueHeads, headDim, vocabulary, tied };
}

/** Its `config.json`. */
export function llamaConfig(llama: LlamaShape): Record<string, unknown> {
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: llama.hidden,
    intermediate_size: llama.mlp,
    num_hidden_layers: llama.layers,
    num_attention_heads: llama.queryHeads,
    num_key_value_heads: llama.keyValueHeads,
    head_dim: llama.headDim,
    vocab_size: llama.vocabulary,
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: llama.tied,
    bos_token_id: 1,
    eos_token_id: 2,
  };
}

/** The seven linear modules of each layer. */
export function llamaModules(llama: LlamaShape): LinearShape[] {
  const { hidden, mlp } = llama;
  const queryWidth = llama.queryHeads * llama.headDim, keyValueWidth = llama.keyValueHeads * llama.headDim;
  const shapes: readonly (readonly [string, number, number])[] = [
    ["self_attn.q_proj", hidden, queryWidth],
    ["self_attn.k_proj", hidden, keyValueWidth],
    ["self_attn.v_proj", hidden, keyValueWidth],
    ["self_attn.o_proj", queryWidth, hidden],
    ["mlp.gate_proj", hidden, mlp],
    ["mlp.up_proj", hidden, mlp],
    ["mlp.down_proj", mlp, hidden],
  ];
  return Array.from(
    { length: llama.layers },
    (_, layer) =>
      shapes.map(([name, inFeatures, outFeatures]) => ({
        name: `model.layers.${layer}.${name}`,
        inFeatures,
        outFeatures,
      })),
  ).flat();
}

/** Those of Llama-2-7B, which has 32 layers. */
export function llama7bModules(layers: number): LinearShape[] {
  return llamaModules({ ...LLAMA_SHAPES["7b"], layers });
}
