import { add, type Tensor } from "@lora-loom/tensor";
import type { LinearRole } from "../architecture.ts";
import type { Deltas, Site } from "../base_model.ts";
import { causalSpans, causalViewers, concatenated, positionsOf, tokenCount } from "../batch.ts";
import { windowOf } from "../config.ts";
import type { Decoder } from "../decoder.ts";
import { rmsNormBackward } from "../ops/rms_norm_backward.ts";
import type { GradientObserver, LossGradients, Trace, TraceOptions } from "./differentiable.ts";
import { LayerTape, type Places } from "./layer_tape.ts";

const DEFAULT_KEEP_BYTES = 256 * 2 ** 20;

/** Finds the site of a layer's module. */
export type SiteFinder = (layer: number, role: LinearRole) => Site;

/**
 * A pass through all layers of a decoder that keeps every layer's input. The last layers also keep their intermediate results as far
 * as `keepBytes` goes; the others compute them again on the way back, one layer at a time.
 */
export class DecoderTrace implements Trace {
  readonly #owned = new DisposableStack();
  /** By the window of attention; most models have one. */
  readonly #places = new Map<number | undefined, Places>();
  readonly #embedded: Tensor;
  readonly #tapes = new Map<number, LayerTape>();
  readonly streams: readonly Tensor[];
  readonly output: Tensor;
  readonly lengths: readonly number[];

  constructor(
    readonly decoder: Decoder,
    sequences: readonly Uint32Array[],
    readonly deltas: Deltas,
    readonly siteOf: SiteFinder,
    { keepBytes = DEFAULT_KEEP_BYTES }: TraceOptions = {},
  ) {
    this.lengths = sequences.map(({ length }) => length);
    decoder.reservePositions(Math.max(...this.lengths));
    this.#embedded = this.#owned.use(decoder.embed(concatenated(sequences), positionsOf(this.lengths)));
    this.streams = this.#run(this.#firstKept(keepBytes));
    this.output = this.#owned.use(decoder.finalNorm(this.streams.at(-1)!));
  }

  backward({ streams = [], output }: LossGradients, observe: GradientObserver): void {
    const { decoder } = this;
    using gradient = decoder.device.zeros(this.output.shape);
    if (output) {
      const last = this.streams.at(-1)!;
      rmsNormBackward(last, decoder.weights.finalNorm, output, decoder.config.normEpsilon, gradient);
    }
    for (let layer = decoder.config.layers - 1; layer >= 0; layer--) {
      const added = streams[layer];
      if (added) add(gradient, added, { into: gradient });
      const tape = this.#tapes.get(layer) ?? this.#tape(layer);
      tape.backward(
        gradient,
        (role, input, at) => observe(this.siteOf(layer, role), input, at),
        layer > 0,
      );
      if (!this.#tapes.has(layer)) tape[Symbol.dispose]();
    }
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }

  /** Where the rows stand in a layer. */
  #placesOf(layer: number): Places {
    const window = windowOf(this.decoder.config, layer);
    const places = this.#places.get(window) ?? this.#uploadPlaces(window);
    this.#places.set(window, places);
    return places;
  }

  #uploadPlaces(window: number | undefined): Places {
    const { decoder, lengths } = this;
    const tokens = tokenCount(lengths);
    const upload = (values: Uint32Array, shape: readonly number[]) =>
      this.#owned.use(decoder.device.upload(values, shape, "u32"));
    return {
      positions: upload(positionsOf(lengths), [tokens]),
      spans: upload(causalSpans(lengths, window), [tokens, 2]),
      viewers: upload(causalViewers(lengths, window), [tokens, 2]),
    };
  }

  /** The first layer whose intermediate results fit, together with all later ones'. */
  #firstKept(keepBytes: number): number {
    let left = keepBytes / Float32Array.BYTES_PER_ELEMENT;
    let layer = this.decoder.config.layers;
    while (layer > 0) {
      left -= LayerTape.size(this.decoder, layer - 1, this.deltas, tokenCount(this.lengths));
      if (left < 0) break;
      layer--;
    }
    return layer;
  }

  #run(firstKept: number): Tensor[] {
    const streams: Tensor[] = [];
    for (let layer = 0; layer < this.decoder.config.layers; layer++) {
      const tape = this.#tape(layer, streams[layer - 1] ?? this.#embedded);
      streams.push(this.#owned.use(tape.output()));
      if (layer < firstKept) tape[Symbol.dispose]();
      else this.#tapes.set(layer, this.#owned.use(tape));
    }
    return streams;
  }

  #tape(layer: number, stream: Tensor = this.streams[layer - 1] ?? this.#embedded): LayerTape {
    return new LayerTape(this.decoder, layer, this.deltas, this.#placesOf(layer), stream);
  }
}
