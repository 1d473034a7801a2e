import type { T5Config } from "./config.ts";

/** The two halves of the model. */
export type Stack = "encoder" | "decoder";

/** Names of an attention's modules, by the prefix of its layer. */
export interface AttentionNames {
  readonly query: string;
  readonly key: string;
  readonly value: string;
  readonly output: string;
  readonly norm: string;
}

/** Names of an MLP's modules. */
export interface MlpNames {
  /** One, or the activated one and its factor. */
  readonly inputs: readonly string[];
  readonly output: string;
  readonly norm: string;
}

function attentionNames(prefix: string, kind: string): AttentionNames {
  const name = (module: string) => `${prefix}.${kind}.${module}`;
  return {
    query: name("q"),
    key: name("k"),
    value: name("v"),
    output: name("o"),
    norm: `${prefix}.layer_norm`,
  };
}

/** Self-attention of a block. */
export function selfAttention(stack: Stack, block: number): AttentionNames {
  return attentionNames(`${stack}.block.${block}.layer.0`, "SelfAttention");
}

/** A decoder block's attention to what was encoded. */
export function crossAttention(block: number): AttentionNames {
  return attentionNames(`decoder.block.${block}.layer.1`, "EncDecAttention");
}

/** The MLP of a block. */
export function mlpOf(stack: Stack, block: number, { gated }: Pick<T5Config, "gated">): MlpNames {
  const prefix = `${stack}.block.${block}.layer.${stack === "encoder" ? 1 : 2}`;
  const inputs = gated ? ["wi_0", "wi_1"] : ["wi"];
  return {
    inputs: inputs.map((module) => `${prefix}.DenseReluDense.${module}`),
    output: `${prefix}.DenseReluDense.wo`,
    norm: `${prefix}.layer_norm`,
  };
}

/** The norm after a stack's last block. */
export function finalNorm(stack: Stack): string {
  return `${stack}.final_layer_norm`;
}

/** Biases by distance, which all blocks of a stack share. */
export function distanceBiasName(stack: Stack): string {
  return `${stack}.block.0.layer.0.SelfAttention.relative_attention_bias`;
}
