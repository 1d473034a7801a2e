import { copy, type Device, type Tensor } from "@lora-loom/tensor";
import {
  DEFAULT_KEEP_BYTES,
  type GradientObserver,
  type LossGradients,
  type Trace,
  type TraceOptions,
} from "../backward/differentiable.ts";
import { firstKept, LayerRun } from "../backward/layer_run.ts";
import type { ModuleObserver } from "../backward/mlp_tape.ts";
import type { Deltas, Site } from "../base_model.ts";
import { causalViewers, concatenated, tokenCount } from "../batch.ts";
import { rmsNormBackward } from "../ops/rms_norm_backward.ts";
import type { View } from "./attention_tape.ts";
import { fullSpans, selfSpans, splitAtAnswers, type T5Batch, t5Batch } from "./batch.ts";
import { BlockTape } from "./block_tape.ts";
import type { T5Layers } from "./layers.ts";
import { finalNorm, type Stack } from "./modules.ts";

/**
 * A pass through both stacks that keeps every block's input. Its streams are the encoder's, whose rows are the prompts, and then the
 * decoder's, whose rows are the start token and the answer. The last blocks also keep their intermediate results as far as `keepBytes`
 * goes; the others compute them again on the way back, one block at a time.
 */
export class T5Trace implements Trace {
  readonly #owned = new DisposableStack();
  readonly #encoder: LayerRun<BlockTape>;
  /** The output of the encoder's final norm, `[prompt tokens, hidden]`. */
  readonly #encoded: Tensor;
  readonly #decoder: LayerRun<BlockTape>;
  readonly output: Tensor;

  constructor(
    readonly layers: T5Layers,
    sequences: readonly Uint32Array[],
    readonly deltas: Deltas,
    readonly siteOf: (module: string) => Site,
    { answerStarts, keepBytes = DEFAULT_KEEP_BYTES }: TraceOptions = {},
  ) {
    const { config } = layers;
    const { prompts, answers } = splitAtAnswers(sequences, answerStarts, config.startToken);
    const batch = t5Batch(sequences.map(({ length }) => length), answerStarts);
    // Counted through both stacks.
    const first = firstKept(blockSizes(layers, batch, deltas), keepBytes);
    const views = this.#owned.use(new Views(layers, batch));

    this.#encoder = this.#owned.use(
      new LayerRun(
        {
          count: config.encoderLayers,
          tape: (block, stream) => new BlockTape(layers, "encoder", block, deltas, views.encoder, stream),
        },
        layers.embed(concatenated(prompts)),
        first,
      ),
    );
    this.#encoded = this.#owned.use(this.#normalised("encoder"));
    const attended = { output: this.#encoded, view: views.cross };
    this.#decoder = this.#owned.use(
      new LayerRun(
        {
          count: config.decoderLayers,
          tape: (block, stream) =>
            new BlockTape(layers, "decoder", block, deltas, views.decoder, stream, attended),
        },
        layers.embed(concatenated(answers)),
        first - config.encoderLayers,
      ),
    );
    this.output = this.#owned.use(this.#normalised("decoder"));
  }

  get streams(): readonly Tensor[] {
    return [...this.#encoder.streams, ...this.#decoder.streams];
  }

  backward({ streams = [], output }: LossGradients, observe: GradientObserver): void {
    const { device, config } = this.layers;
    const show: ModuleObserver<string> = (modules, input, gradients) =>
      modules.forEach((module, i) => observe(this.siteOf(module), input, gradients[i]!));
    using atEncoded = device.zeros(this.#encoded.shape);
    {
      using gradient = device.zeros(this.output.shape);
      if (output) this.#backThroughFinalNorm("decoder", output, gradient);
      this.#decoder.backward(
        gradient,
        streams.slice(config.encoderLayers),
        (tape, block) => tape.backward(gradient, show, block > 0, atEncoded),
      );
    }
    using gradient = device.zeros(this.#encoded.shape);
    this.#backThroughFinalNorm("encoder", atEncoded, gradient);
    this.#encoder.backward(gradient, streams, (tape, block) => tape.backward(gradient, show, block > 0));
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }

  #lastStream(stack: Stack): Tensor {
    return (stack === "encoder" ? this.#encoder : this.#decoder).streams.at(-1)!;
  }

  #normalised(stack: Stack): Tensor {
    return this.layers.norm(this.#lastStream(stack), finalNorm(stack));
  }

  #backThroughFinalNorm(stack: Stack, at: Tensor, into: Tensor): void {
    const { weights, config } = this.layers;
    const gain = weights.norm(finalNorm(stack));
    rmsNormBackward(this.#lastStream(stack), gain, at, config.normEpsilon, into);
  }
}

function blockSizes(layers: T5Layers, { promptLengths, answerLengths }: T5Batch, deltas: Deltas): number[] {
  const { encoderLayers, decoderLayers } = layers.config;
  const prompts = tokenCount(promptLengths);
  const sizes = (stack: Stack, blocks: number, own: number) =>
    Array.from(
      { length: blocks },
      (_, block) => BlockTape.size(layers, stack, block, deltas, { own, prompts }),
    );
  return [
    ...sizes("encoder", encoderLayers, prompts),
    ...sizes("decoder", decoderLayers, tokenCount(answerLengths)),
  ];
}

/** Which rows see which, in the three kinds of attention. */
class Views implements Disposable {
  readonly #owned = new DisposableStack();
  readonly encoder: View;
  readonly decoder: View;
  readonly cross: View;

  constructor(layers: T5Layers, batch: T5Batch) {
    const { promptLengths, answerLengths } = batch;
    const self = (stack: Stack, viewers: Uint32Array): View => {
      const { spans, positions, longest } = selfSpans(stack, batch);
      const { table, origins } = layers.distanceBias(stack, positions, longest);
      // A copy, because the model replaces its table when a later pass has a longer sequence.
      const bias = { table: this.#owned.use(copy(table)), origins: this.#owned.use(origins) };
      return { ...this.#pairs(layers.device, spans, viewers), bias };
    };
    this.encoder = self("encoder", fullSpans(promptLengths, promptLengths));
    this.decoder = self("decoder", causalViewers(answerLengths));
    this.cross = this.#pairs(
      layers.device,
      fullSpans(answerLengths, promptLengths),
      fullSpans(promptLengths, answerLengths),
    );
  }

  #pairs(device: Device, spans: Uint32Array, viewers: Uint32Array): View {
    const upload = (values: Uint32Array) =>
      this.#owned.use(device.upload(values, [values.length / 2, 2], "u32"));
    return { spans: upload(spans), viewers: upload(viewers) };
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
