import type { Site, Stage } from "../base_model.ts";
import type { T5Config } from "./config.ts";
import {
  type AttentionNames,
  crossAttention,
  finalNorm,
  type MlpNames,
  mlpOf,
  selfAttention,
  type Stack,
} from "./modules.ts";

/** What a stage computes; `nextNorm` makes the next stage's input of the stream. */
export type T5Work =
  | { readonly kind: "self_attention"; readonly stack: Stack; readonly names: AttentionNames }
  | { readonly kind: "cross_attention"; readonly names: AttentionNames }
  | { readonly kind: "mlp"; readonly names: MlpNames }
  /** Writes the stream. */
  | { readonly kind: "output"; readonly module: string; readonly nextNorm: string }
  /** Keys and values of all cross-attentions; they are computed where they are attended to. */
  | { readonly kind: "encoded"; readonly nextNorm: string };

/** A stage with what it computes. */
export interface T5Stage extends Stage {
  readonly reads: "prompt" | "answer";
  readonly work: T5Work;
}

/** The norm before a block's self-attention; past the last block, the stack's final one. */
export function blockNorm(stack: Stack, block: number, config: T5Config): string {
  const blocks = stack === "encoder" ? config.encoderLayers : config.decoderLayers;
  return block < blocks ? selfAttention(stack, block).norm : finalNorm(stack);
}

/**
 * Stages in the order of computation: the encoder's, then one with the keys and values of all cross-attentions, which all read
 * the encoder's output, then the decoder's.
 */
export function t5Stages(config: T5Config): T5Stage[] {
  const blocks = (count: number, stagesOf: (block: number) => Unnumbered[]) =>
    Array.from({ length: count }, (_, block) => stagesOf(block)).flat();
  return [
    ...blocks(config.encoderLayers, (block) => encoderBlock(block, config)),
    encodedStage(config),
    ...blocks(config.decoderLayers, (block) => decoderBlock(block, config)),
  ].map((stage, index) => ({ index, ...stage }));
}

type Unnumbered = Omit<T5Stage, "index">;

function encoderBlock(block: number, config: T5Config): Unnumbered[] {
  const afterAttention = mlpOf("encoder", block, config).norm;
  return [
    ...selfStages("encoder", block, afterAttention, config),
    ...mlpStages("encoder", block, config),
  ];
}

function decoderBlock(block: number, config: T5Config): Unnumbered[] {
  const cross = crossAttention(block);
  return [
    ...selfStages("decoder", block, cross.norm, config),
    {
      name: cross.query,
      reads: "answer",
      sites: readers([cross.query], config, innerSize(config)),
      work: { kind: "cross_attention", names: cross },
    },
    outputStage("answer", cross.output, innerSize(config), mlpOf("decoder", block, config).norm, config),
    ...mlpStages("decoder", block, config),
  ];
}

function encodedStage(config: T5Config): Unnumbered {
  const modules = Array.from({ length: config.decoderLayers }, (_, block) => crossAttention(block))
    .flatMap(({ key, value }) => [key, value]);
  return {
    name: "decoder.EncDecAttention.kv",
    reads: "prompt",
    sites: readers(modules, config, innerSize(config)),
    work: { kind: "encoded", nextNorm: blockNorm("decoder", 0, config) },
  };
}

function selfStages(stack: Stack, block: number, nextNorm: string, config: T5Config): Unnumbered[] {
  const names = selfAttention(stack, block);
  return [
    {
      name: renamed(names.query, "qkv"),
      reads: readsOf(stack),
      sites: readers([names.query, names.key, names.value], config, innerSize(config)),
      work: { kind: "self_attention", stack, names },
    },
    outputStage(readsOf(stack), names.output, innerSize(config), nextNorm, config),
  ];
}

function mlpStages(stack: Stack, block: number, config: T5Config): Unnumbered[] {
  const names = mlpOf(stack, block, config);
  return [
    {
      name: renamed(names.output, "wi"),
      reads: readsOf(stack),
      sites: readers(names.inputs, config, config.mlpSize),
      work: { kind: "mlp", names },
    },
    outputStage(readsOf(stack), names.output, config.mlpSize, blockNorm(stack, block + 1, config), config),
  ];
}

function outputStage(
  reads: T5Stage["reads"],
  module: string,
  inFeatures: number,
  nextNorm: string,
  { hiddenSize }: T5Config,
): Unnumbered {
  const site = { module, inFeatures, outFeatures: hiddenSize, writesStream: true };
  return { name: module, reads, sites: [site], work: { kind: "output", module, nextNorm } };
}

function readers(modules: readonly string[], { hiddenSize }: T5Config, outFeatures: number): Site[] {
  return modules.map((module) => ({ module, inFeatures: hiddenSize, outFeatures, writesStream: false }));
}

function innerSize({ queryHeads, headDim }: T5Config): number {
  return queryHeads * headDim;
}

function readsOf(stack: Stack): T5Stage["reads"] {
  return stack === "encoder" ? "prompt" : "answer";
}

/** A module's name with its last part replaced. */
function renamed(module: string, last: string): string {
  return module.replace(/[^.]*$/, last);
}
