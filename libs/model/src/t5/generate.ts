import type { Tensor } from "@lora-loom/tensor";
import type { Deltas, GenerateOptions } from "../base_model.ts";
import { checkSequences, concatenated } from "../batch.ts";
import { growCompletions, likeliestTokens } from "../greedy.ts";
import { KeyValueCache } from "../key_value_cache.ts";
import { promptGroups, rowLimits } from "../prompt_groups.ts";
import { selfSpans, t5Batch } from "./batch.ts";
import { T5Layers } from "./layers.ts";
import { crossAttention, finalNorm, mlpOf, selfAttention } from "./modules.ts";
import { foldT5Deltas } from "./weights.ts";

const NO_DELTAS: Deltas = new Map();

/**
 * Greedy decoding of all prompts together: the encoder runs once, then the decoder's newest tokens, with cached keys and values
 * of both attentions and one read-back a token. Prompts are split into groups only where a device could not bind the
 * activations of all.
 */
export async function generateT5(
  base: T5Layers,
  prompts: readonly Uint32Array[],
  deltas: Deltas,
  options: GenerateOptions,
): Promise<Uint32Array[]> {
  checkSequences(prompts, base.config);
  using weights = foldT5Deltas(base.weights, deltas);
  using layers = new T5Layers(base.device, base.config, weights);
  const completions: Uint32Array[] = [];
  for (const group of promptGroups(prompts, 0, rowLimits(base))) {
    completions.push(...await completeGroup(layers, group, options));
  }
  return completions;
}

/** A prompt on its way to a completion. */
interface Completion {
  /** First of its encoder rows, and how many there are. */
  readonly promptSpan: readonly [first: number, count: number];
  /** First of its rows in the decoder's cache. */
  readonly firstRow: number;
  readonly tokens: number[];
}

async function completeGroup(
  layers: T5Layers,
  prompts: readonly Uint32Array[],
  options: GenerateOptions,
): Promise<Uint32Array[]> {
  const { maxNewTokens } = options;
  let firstPromptRow = 0;
  const completions = prompts.map(({ length }, index): Completion => {
    const promptSpan = [firstPromptRow, length] as const;
    firstPromptRow += length;
    return { promptSpan, firstRow: index * maxNewTokens, tokens: [] };
  });
  if (maxNewTokens === 0) return completions.map(() => new Uint32Array());
  using encoded = new EncodedPrompts(layers, prompts);
  const { config } = layers;
  const cacheSizes = { ...config, layers: config.decoderLayers };
  using cache = new KeyValueCache(layers.device, cacheSizes, prompts.length * maxNewTokens);
  return await growCompletions(
    completions,
    options,
    (active) => nextTokens(layers, active, maxNewTokens, encoded, cache),
  );
}

/** Keys and values of every cross-attention, `[tokens of all prompts, heads·headDim]` each. */
class EncodedPrompts implements Disposable {
  readonly #owned = new DisposableStack();
  readonly keys: readonly Tensor[];
  readonly values: readonly Tensor[];

  constructor(layers: T5Layers, prompts: readonly Uint32Array[]) {
    using encoded = encode(layers, prompts);
    const project = (module: string) => this.#owned.use(layers.linear(module, encoded, NO_DELTAS));
    const names = Array.from({ length: layers.config.decoderLayers }, (_, block) => crossAttention(block));
    this.keys = names.map(({ key }) => project(key));
    this.values = names.map(({ value }) => project(value));
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** The encoder's output, `[tokens, hidden]`. */
function encode(layers: T5Layers, prompts: readonly Uint32Array[]): Tensor {
  const { spans, positions, longest } = selfSpans("encoder", t5Batch(prompts.map(({ length }) => length)));
  const bias = layers.distanceBias("encoder", positions, longest);
  using _origins = bias.origins;
  using stream = layers.embed(concatenated(prompts));
  for (let block = 0; block < layers.config.encoderLayers; block++) {
    const names = selfAttention("encoder", block);
    using input = layers.norm(stream, names.norm);
    using queries = layers.linear(names.query, input, NO_DELTAS);
    using keys = layers.linear(names.key, input, NO_DELTAS);
    using values = layers.linear(names.value, input, NO_DELTAS);
    using context = layers.attend(queries, keys, values, spans, bias);
    layers.linear(names.output, context, NO_DELTAS, stream);
    addMlp(layers, "encoder", block, stream);
  }
  return layers.norm(stream, finalNorm("encoder"));
}

/** Adds a block's MLP to the stream, in place. */
function addMlp(layers: T5Layers, stack: "encoder" | "decoder", block: number, stream: Tensor): void {
  const names = mlpOf(stack, block, layers.config);
  using input = layers.norm(stream, names.norm);
  using hidden = layers.mlpHidden(names, input, NO_DELTAS);
  layers.linear(names.output, hidden, NO_DELTAS, stream);
}

/** Runs the newest token of each completion, which all have the same number of them, and picks the likeliest next ones. */
async function nextTokens(
  layers: T5Layers,
  active: readonly Completion[],
  maxNewTokens: number,
  encoded: EncodedPrompts,
  cache: KeyValueCache,
): Promise<Uint32Array> {
  const { device, config } = layers;
  const position = active[0]!.tokens.length;
  const newest = Uint32Array.from(active, ({ tokens }) => tokens.at(-1) ?? config.startToken);
  const spans = Uint32Array.from(active.flatMap(({ firstRow }) => [firstRow, position + 1]));
  const promptSpans = Uint32Array.from(active.flatMap(({ promptSpan }) => promptSpan));
  const bias = layers.distanceBias("decoder", new Uint32Array(active.length).fill(position), maxNewTokens);
  using _origins = bias.origins;
  using rows = device.upload(
    Uint32Array.from(active, ({ firstRow }) => firstRow + position),
    [active.length],
    "u32",
  );
  using stream = layers.embed(newest);
  for (let block = 0; block < config.decoderLayers; block++) {
    const self = selfAttention("decoder", block), cross = crossAttention(block);
    {
      using input = layers.norm(stream, self.norm);
      using queries = layers.linear(self.query, input, NO_DELTAS);
      using keys = layers.linear(self.key, input, NO_DELTAS);
      using values = layers.linear(self.value, input, NO_DELTAS);
      cache.write(block, rows, keys, values);
      using context = layers.attend(queries, cache.keys(block), cache.values(block), spans, bias);
      layers.linear(self.output, context, NO_DELTAS, stream);
    }
    {
      using input = layers.norm(stream, cross.norm);
      using queries = layers.linear(cross.query, input, NO_DELTAS);
      using context = layers.attend(queries, encoded.keys[block]!, encoded.values[block]!, promptSpans);
      layers.linear(cross.output, context, NO_DELTAS, stream);
    }
    addMlp(layers, "decoder", block, stream);
  }
  using last = layers.norm(stream, finalNorm("decoder"));
  using logits = layers.logits(last);
  return await likeliestTokens(logits, position === 0);
}
