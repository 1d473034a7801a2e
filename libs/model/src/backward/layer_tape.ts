import { add, type Tensor } from "@lora-loom/tensor";
import { linearName, type LinearRole } from "../architecture.ts";
import type { Deltas } from "../base_model.ts";
import type { Decoder } from "../decoder.ts";
import { attentionBackward } from "../ops/attention_backward.ts";
import { rmsNormBackward } from "../ops/rms_norm_backward.ts";
import { FoldedModules } from "./folded_modules.ts";
import type { Tape } from "./layer_run.ts";
import { MlpTape, type ModuleObserver } from "./mlp_tape.ts";

/** Where the rows of a batch stand, on the device. */
export interface Places {
  /** u32 `[tokens]`: position of each row in its sequence. */
  readonly positions: Tensor;
  /** u32 `[tokens, 2]`: what each row sees. */
  readonly spans: Tensor;
  /** u32 `[tokens, 2]`: what sees each row. */
  readonly viewers: Tensor;
}

const MLP_ROLES = { activated: "gate", factor: "up", down: "down" } as const;

/** Everything that the way back through one decoder layer needs, from the layer's input. */
export class LayerTape implements Tape {
  readonly #owned = new DisposableStack();
  readonly #folded: FoldedModules<LinearRole>;
  readonly #attentionInput: Tensor;
  /** Queries and keys before the norm of their heads; only in families that have one. */
  readonly #rawQueries: Tensor | undefined;
  readonly #rawKeys: Tensor | undefined;
  readonly #queries: Tensor;
  readonly #keys: Tensor;
  readonly #values: Tensor;
  readonly #context: Tensor;
  /** The stream between attention and MLP. */
  readonly #middle: Tensor;
  readonly #mlp: MlpTape<LinearRole>;

  /** @param stream what enters the layer, `[tokens, hidden]`; it must outlive the tape */
  constructor(
    readonly decoder: Decoder,
    readonly layer: number,
    readonly deltas: Deltas,
    readonly places: Places,
    readonly stream: Tensor,
  ) {
    const own = this.#owned;
    const { norms, linears } = decoder.weights.layer(layer);
    const folded = own.use(
      new FoldedModules<LinearRole>(
        (role) => linears[role]!,
        (role) => deltas.get(linearName(decoder.architecture, layer, role)),
      ),
    );
    this.#folded = folded;
    this.#attentionInput = own.use(decoder.norm(layer, "attention", stream));
    const rotated = (role: "query" | "key") => {
      const gain = norms[role];
      const raw = folded.apply(role, this.#attentionInput);
      using normed = gain ? decoder.norm(layer, role, raw) : undefined;
      const turned = own.use(decoder.rotate(layer, normed ?? raw, places.positions));
      if (gain) own.use(raw);
      else raw.dispose();
      return { raw: gain ? raw : undefined, turned };
    };
    const queries = rotated("query"), keys = rotated("key");
    this.#rawQueries = queries.raw;
    this.#rawKeys = keys.raw;
    this.#queries = queries.turned;
    this.#keys = keys.turned;
    this.#values = own.use(folded.apply("value", this.#attentionInput));
    this.#context = own.use(decoder.attend(this.#queries, this.#keys, this.#values, places.spans));
    const attended = own.use(folded.apply("output", this.#context));
    this.#middle = add(stream, attended, { into: attended });
    const mlpInput = own.use(decoder.norm(layer, "mlp", this.#middle));
    this.#mlp = own.use(new MlpTape(folded, MLP_ROLES, decoder.config.activation, mlpInput));
  }

  /** Numbers that a tape keeps: for each token, and for the layer's weights with deltas. */
  static size({ config, architecture }: Decoder, layer: number, deltas: Deltas, tokens: number): number {
    const { hiddenSize, mlpSize, queryHeads, keyValueHeads, headDim } = config;
    const heads = (2 * queryHeads + 2 * keyValueHeads) * headDim * (architecture.norms.query ? 2 : 1);
    const names = new Set(
      Object.keys(architecture.linears).map((role) => linearName(architecture, layer, role as LinearRole)),
    );
    const weights = [...deltas].filter(([module]) => names.has(module))
      .reduce((sum, [, { a, b }]) => sum + a.shape[1]! * b.shape[0]!, 0);
    return tokens * (3 * hiddenSize + heads + MlpTape.size(mlpSize, true)) + weights;
  }

  /** The stream after the layer, `[tokens, hidden]`; the caller's to dispose. */
  output(): Tensor {
    const down = this.#mlp.output();
    return add(this.#middle, down, { into: down });
  }

  /**
   * Goes back through the layer.
   *
   * @param gradient at the stream after the layer; becomes the gradient at the stream before it
   * @param toInput false: stop once every module was shown, and leave `gradient` half done
   */
  backward(gradient: Tensor, observe: ModuleObserver<LinearRole>, toInput: boolean): void {
    const { decoder } = this;
    const { norms } = decoder.weights.layer(this.layer);
    {
      using atMlpInput = this.#mlp.backward(gradient, observe);
      rmsNormBackward(this.#middle, norms.mlp, atMlpInput, decoder.config.normEpsilon, gradient);
    }
    using atAttentionInput = this.#backThroughAttention(gradient, observe, toInput);
    if (!atAttentionInput) return;
    rmsNormBackward(this.stream, norms.attention, atAttentionInput, decoder.config.normEpsilon, gradient);
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }

  #backThroughAttention(
    gradient: Tensor,
    observe: ModuleObserver<LinearRole>,
    toInput: boolean,
  ): Tensor | undefined {
    observe("output", this.#context, gradient);
    using atContext = this.#folded.back("output", gradient);
    const heads = attentionBackward(
      this.#queries,
      this.#keys,
      this.#values,
      this.#context,
      atContext,
      this.places.spans,
      this.places.viewers,
      this.decoder.config,
    );
    using atQueries = this.#backThroughRotation("query", heads.queries, this.#rawQueries);
    using atKeys = this.#backThroughRotation("key", heads.keys, this.#rawKeys);
    using atValues = heads.values;
    observe("query", this.#attentionInput, atQueries);
    observe("key", this.#attentionInput, atKeys);
    observe("value", this.#attentionInput, atValues);
    if (!toInput) return undefined;
    const atInput = this.#folded.back("query", atQueries);
    this.#folded.back("key", atKeys, atInput);
    return this.#folded.back("value", atValues, atInput);
  }

  /** Takes over `turned`, the gradient at rotated heads; returns the one at what the module gave. */
  #backThroughRotation(role: "query" | "key", turned: Tensor, raw: Tensor | undefined): Tensor {
    using atTurned = turned;
    const straight = this.decoder.rotate(this.layer, atTurned, this.places.positions, { inverse: true });
    if (!raw) return straight;
    using atNormed = straight;
    const atRaw = raw.device.zeros(raw.shape);
    const gain = this.decoder.weights.layer(this.layer).norms[role]!;
    rmsNormBackward(raw, gain, atNormed, this.decoder.config.normEpsilon, atRaw);
    return atRaw;
  }
}
