import { add, type Tensor } from "@lora-loom/tensor";

/** Everything that the way back through one layer needs. */
export interface Tape extends Disposable {
  /** The stream after the layer, `[tokens, hidden]`; the caller's to dispose. */
  output(): Tensor;
}

/** Layers that follow one another, of one stack of a model. */
export interface Layers<T extends Tape> {
  readonly count: number;
  /** Runs a layer from what enters it, which outlives the tape. */
  tape(layer: number, stream: Tensor): T;
}

/**
 * The first layer whose intermediate results fit into `keepBytes`, together with all later ones'.
 *
 * @param sizes numbers that each layer's tape keeps
 */
export function firstKept(sizes: readonly number[], keepBytes: number): number {
  let left = keepBytes / Float32Array.BYTES_PER_ELEMENT;
  let layer = sizes.length;
  while (layer > 0) {
    left -= sizes[layer - 1]!;
    if (left < 0) break;
    layer--;
  }
  return layer;
}

/**
 * A run through layers that keeps every layer's input. From `firstKept` on they also keep their tapes; those of the others are made again
 * on the way back, one at a time.
 */
export class LayerRun<T extends Tape> implements Disposable {
  readonly #owned = new DisposableStack();
  readonly #kept = new Map<number, T>();
  /** The stream after each layer. */
  readonly streams: readonly Tensor[];

  /** @param first what enters the first layer; the run takes it over */
  constructor(readonly layers: Layers<T>, readonly first: Tensor, firstKept: number) {
    this.#owned.use(first);
    const streams: Tensor[] = [];
    for (let layer = 0; layer < layers.count; layer++) {
      const tape = layers.tape(layer, streams[layer - 1] ?? first);
      streams.push(this.#owned.use(tape.output()));
      if (layer < firstKept) tape[Symbol.dispose]();
      else this.#kept.set(layer, this.#owned.use(tape));
    }
    this.streams = streams;
  }

  /**
   * Goes back, last layer first.
   *
   * @param gradient at the last stream; each layer's `through` makes the one before the layer of it
   * @param added gradients at the stream after each layer, to take in on the way
   */
  backward(
    gradient: Tensor,
    added: readonly (Tensor | undefined)[],
    through: (tape: T, layer: number) => void,
  ): void {
    for (let layer = this.layers.count - 1; layer >= 0; layer--) {
      const more = added[layer];
      if (more) add(gradient, more, { into: gradient });
      const tape = this.#kept.get(layer) ??
        this.layers.tape(layer, this.streams[layer - 1] ?? this.first);
      through(tape, layer);
      if (!this.#kept.has(layer)) tape[Symbol.dispose]();
    }
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
