import { concatColumns, type Tensor } from "@lora-loom/tensor";
import { linearName, type LinearRole, sharersOf } from "../architecture.ts";
import type { Deltas, Site } from "../base_model.ts";
import { causalSpans, causalViewers, concatenated, positionsOf, tokenCount } from "../batch.ts";
import { windowOf } from "../config.ts";
import type { Decoder } from "../decoder.ts";
import {
  DEFAULT_KEEP_BYTES,
  type GradientObserver,
  type LossGradients,
  type Trace,
  type TraceOptions,
} from "./differentiable.ts";
import { firstKept, LayerRun } from "./layer_run.ts";
import { LayerTape, type Places } from "./layer_tape.ts";
import type { ModuleObserver } from "./mlp_tape.ts";

/**
 * A pass through all layers of a decoder that keeps every layer's input. The last layers also keep their intermediate results as far
 * as `keepBytes` goes; the others compute them again on the way back, one layer at a time.
 */
export class DecoderTrace implements Trace {
  readonly #owned = new DisposableStack();
  /** By the window of attention, and by where the angles of the longest sequence begin. */
  readonly #places = new Map<string, Places>();
  readonly #run: LayerRun<LayerTape>;
  readonly output: Tensor;
  readonly #lengths: readonly number[];

  constructor(
    readonly decoder: Decoder,
    sequences: readonly Uint32Array[],
    readonly deltas: Deltas,
    readonly siteOf: (module: string) => Site,
    { keepBytes = DEFAULT_KEEP_BYTES }: TraceOptions = {},
  ) {
    this.#lengths = sequences.map(({ length }) => length);
    decoder.reservePositions(Math.max(...this.#lengths));
    const tokens = tokenCount(this.#lengths);
    const sizes = Array.from(
      { length: decoder.config.layers },
      (_, layer) => LayerTape.size(decoder, layer, deltas, tokens),
    );
    const layers = {
      count: decoder.config.layers,
      tape: (layer: number, stream: Tensor) =>
        new LayerTape(decoder, layer, deltas, () => this.#placesOf(layer), stream),
    };
    const embedded = decoder.embed(concatenated(sequences), positionsOf(this.#lengths));
    this.#run = this.#owned.use(new LayerRun(layers, embedded, firstKept(sizes, keepBytes)));
    this.output = this.#owned.use(decoder.finalNorm(this.streams.at(-1)!));
  }

  get streams(): readonly Tensor[] {
    return this.#run.streams;
  }

  backward({ streams = [], output }: LossGradients, observe: GradientObserver): void {
    const { decoder } = this;
    using gradient = decoder.device.zeros(this.output.shape);
    if (output) decoder.finalNormBackward(this.streams.at(-1)!, output, gradient);
    this.#run.backward(
      gradient,
      streams,
      (tape, layer) => tape.backward(gradient, this.#observer(layer, observe), layer > 0),
    );
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }

  /** Shows each module once; gradients at the roles that share one stand side by side. */
  #observer(layer: number, observe: GradientObserver): ModuleObserver<LinearRole> {
    const { architecture } = this.decoder;
    return (roles, input, gradients) => {
      for (const [first, role] of roles.entries()) {
        const sharers = sharersOf(architecture, role);
        if (sharers[0] !== role) continue;
        const site = this.siteOf(linearName(architecture, layer, role));
        if (sharers.length === 1) {
          observe(site, input, gradients[first]!);
          continue;
        }
        using together = concatColumns(sharers.map((sharer) => gradients[roles.indexOf(sharer)]!));
        observe(site, input, together);
      }
    };
  }

  /** Where the rows stand in a layer. */
  #placesOf(layer: number): Places {
    const window = windowOf(this.decoder.config, layer);
    const key = `${window} ${this.decoder.firstAngle(Math.max(...this.#lengths))}`;
    const places = this.#places.get(key) ?? this.#uploadPlaces(window);
    this.#places.set(key, places);
    return places;
  }

  #uploadPlaces(window: number | undefined): Places {
    const { decoder } = this;
    const lengths = this.#lengths;
    const tokens = tokenCount(lengths);
    const upload = (values: Uint32Array, shape: readonly number[]) =>
      this.#owned.use(decoder.device.upload(values, shape, "u32"));
    return {
      positions: upload(positionsOf(lengths, (length) => decoder.firstAngle(length)), [tokens]),
      spans: upload(causalSpans(lengths, window), [tokens, 2]),
      viewers: upload(causalViewers(lengths, window), [tokens, 2]),
    };
  }
}
