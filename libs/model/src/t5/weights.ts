import type { ModelWeights } from "@lora-loom/formats";
import type { Device, Tensor } from "@lora-loom/tensor";
import type { Deltas } from "../base_model.ts";
import { foldDelta } from "../linear.ts";
import { WeightLoader } from "../weight_loader.ts";
import type { Linear } from "../weights.ts";
import type { T5Config } from "./config.ts";
import {
  type AttentionNames,
  crossAttention,
  distanceBiasName,
  finalNorm,
  mlpOf,
  selfAttention,
  type Stack,
} from "./modules.ts";

/** A T5's weights by name, all f32. */
export interface T5Weights extends Disposable {
  /** `[vocabulary, hidden]`; both stacks share them. */
  readonly embeddings: Tensor;
  /** `[vocabulary, hidden]`; the embeddings themselves where they are tied. */
  readonly head: Tensor;
  linear(module: string): Linear;
  /** Gain of a norm, `[hidden]`. */
  norm(name: string): Tensor;
  /** Biases of a stack's scores, `[distanceBuckets, heads]`. */
  distanceBias(stack: Stack): Tensor;
}

const HEAD = "lm_head.weight";

/**
 * Puts a T5's weights on a device, one tensor at a time. A head of its own is taken where the files have one.
 *
 * @throws {ModelError} `missing_weight`, `wrong_weight_shape`, `unsupported_dtype`, `non_finite`
 */
export async function loadT5Weights(
  device: Device,
  config: T5Config,
  stored: ModelWeights,
): Promise<T5Weights> {
  const loader = new WeightLoader(device, stored);
  try {
    const vocabulary = [config.vocabularySize, config.hiddenSize];
    const embeddings = await loader.load("shared.weight", vocabulary);
    const head = loader.has(HEAD) ? await loader.load(HEAD, vocabulary) : embeddings;
    const tensors = new Map<string, Tensor>();
    for (const [name, shape] of layerWeights(config)) {
      tensors.set(name, await loader.load(`${name}.weight`, shape));
    }
    await loader.checkFinite();
    return {
      embeddings,
      head,
      linear: (module) => ({ weight: tensors.get(module)! }),
      norm: (name) => tensors.get(name)!,
      distanceBias: (stack) => tensors.get(distanceBiasName(stack))!,
      [Symbol.dispose]: () => loader[Symbol.dispose](),
    };
  } catch (error) {
    loader[Symbol.dispose]();
    throw error;
  }
}

/** Every weight but the embeddings and the head, with its shape. */
function* layerWeights(config: T5Config): Iterable<[name: string, shape: readonly number[]]> {
  const { hiddenSize, queryHeads, distanceBuckets } = config;
  for (const stack of ["encoder", "decoder"] as const) {
    yield [distanceBiasName(stack), [distanceBuckets, queryHeads]];
    yield [finalNorm(stack), [hiddenSize]];
    const blocks = stack === "encoder" ? config.encoderLayers : config.decoderLayers;
    for (let block = 0; block < blocks; block++) {
      yield* attentionWeights(selfAttention(stack, block), config);
      if (stack === "decoder") yield* attentionWeights(crossAttention(block), config);
      yield* mlpWeights(stack, block, config);
    }
  }
}

function* attentionWeights(
  { query, key, value, output, norm }: AttentionNames,
  { hiddenSize, queryHeads, headDim }: T5Config,
): Iterable<[string, readonly number[]]> {
  for (const module of [query, key, value]) yield [module, [queryHeads * headDim, hiddenSize]];
  yield [output, [hiddenSize, queryHeads * headDim]];
  yield [norm, [hiddenSize]];
}

function* mlpWeights(stack: Stack, block: number, config: T5Config): Iterable<[string, readonly number[]]> {
  const { inputs, output, norm } = mlpOf(stack, block, config);
  for (const module of inputs) yield [module, [config.mlpSize, config.hiddenSize]];
  yield [output, [config.hiddenSize, config.mlpSize]];
  yield [norm, [config.hiddenSize]];
}

/** Weights whose adapted modules hold W0 + B·A, for passes that run many times; disposing them leaves the base's alone. */
export function foldT5Deltas(base: T5Weights, deltas: Deltas): T5Weights {
  const folded = new Map(
    [...deltas].map(([module, delta]) => [module, foldDelta(base.linear(module), delta)]),
  );
  return {
    ...base,
    linear(module) {
      const weight = folded.get(module);
      return weight ? { weight } : base.linear(module);
    },
    [Symbol.dispose]() {
      for (const weight of folded.values()) weight.dispose();
    },
  };
}
