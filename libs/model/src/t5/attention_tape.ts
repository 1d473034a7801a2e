import { add, type Tensor } from "@lora-loom/tensor";
import type { FoldedModules } from "../backward/folded_modules.ts";
import type { ModuleObserver } from "../backward/mlp_tape.ts";
import { attention, type DistanceBias } from "../ops/attention.ts";
import { attentionBackward } from "../ops/attention_backward.ts";
import { rmsNormBackward } from "../ops/rms_norm_backward.ts";
import type { T5Layers } from "./layers.ts";
import type { AttentionNames } from "./modules.ts";

/** Which rows an attention's rows see, on the device. */
export interface View {
  /** u32 `[rows, 2]`: what each query row sees. */
  readonly spans: Tensor;
  /** u32 `[keyRows, 2]`: what sees each key row. */
  readonly viewers: Tensor;
  readonly bias?: DistanceBias;
}

/** Everything that the way back through a norm and an attention needs, from the stream before them. */
export class AttentionTape implements Disposable {
  readonly #owned = new DisposableStack();
  readonly #input: Tensor;
  readonly #queries: Tensor;
  readonly #keys: Tensor;
  readonly #values: Tensor;
  readonly #context: Tensor;

  /**
   * @param stream `[tokens, hidden]`; it must outlive the tape
   * @param encoded what keys and values are made of, in attention to it; else they are made of the stream
   */
  constructor(
    readonly layers: T5Layers,
    readonly folded: FoldedModules<string>,
    readonly names: AttentionNames,
    readonly view: View,
    readonly stream: Tensor,
    readonly encoded?: Tensor,
  ) {
    const own = this.#owned;
    this.#input = own.use(layers.norm(stream, names.norm));
    this.#queries = own.use(folded.apply(names.query, this.#input));
    this.#keys = own.use(folded.apply(names.key, this.#source));
    this.#values = own.use(folded.apply(names.value, this.#source));
    this.#context = own.use(
      attention(this.#queries, this.#keys, this.#values, view.spans, layers.config, view.bias),
    );
  }

  /** Numbers that a tape keeps of so many rows and, in attention to what was encoded, rows of keys. */
  static size({ config }: T5Layers, rows: number, keyRows = rows): number {
    const { hiddenSize, queryHeads, headDim } = config;
    return rows * hiddenSize + 2 * (rows + keyRows) * queryHeads * headDim;
  }

  /** The stream after the attention; the caller's to dispose. */
  output(): Tensor {
    const attended = this.folded.apply(this.names.output, this.#context);
    return add(this.stream, attended, { into: attended });
  }

  /**
   * Goes back.
   *
   * @param gradient at the stream after; becomes the gradient at the stream before
   * @param atEncoded takes in the gradient at what was encoded
   * @param toInput false: stop once every module was shown, and leave `gradient` half done
   */
  backward(
    gradient: Tensor,
    observe: ModuleObserver<string>,
    { atEncoded, toInput = true }: { readonly atEncoded?: Tensor; readonly toInput?: boolean } = {},
  ): void {
    const { layers, folded, names, view } = this;
    observe([names.output], this.#context, [gradient]);
    using atContext = folded.back(names.output, gradient);
    const { queries, keys, values } = attentionBackward(
      this.#queries,
      this.#keys,
      this.#values,
      this.#context,
      atContext,
      view.spans,
      view.viewers,
      layers.config,
      view.bias,
    );
    using atQueries = queries;
    using atKeys = keys;
    using atValues = values;
    observe([names.query], this.#input, [atQueries]);
    observe([names.key, names.value], this.#source, [atKeys, atValues]);
    if (!toInput) return;
    using atInput = folded.back(names.query, atQueries);
    const atSource = atEncoded ?? atInput;
    folded.back(names.key, atKeys, atSource);
    folded.back(names.value, atValues, atSource);
    const gain = layers.weights.norm(names.norm);
    rmsNormBackward(this.stream, gain, atInput, layers.config.normEpsilon, gradient);
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }

  /** What keys and values are made of. */
  get #source(): Tensor {
    return this.encoded ?? this.#input;
  }
}
