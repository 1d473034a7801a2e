import { add, type Tensor } from "@lora-loom/tensor";
import {
  type Architecture,
  linearName,
  type LinearRole,
  type NormRole,
  outputsOf,
  rolesOf,
} from "../architecture.ts";
import type { Deltas } from "../base_model.ts";
import type { Decoder } from "../decoder.ts";
import { attentionBackward } from "../ops/attention_backward.ts";
import { FoldedModules } from "./folded_modules.ts";
import type { Tape } from "./layer_run.ts";
import { type MlpModules, MlpTape, type ModuleObserver } from "./mlp_tape.ts";

/** Where the rows of a batch stand, on the device. */
export interface Places {
  /** u32 `[tokens]`: what each row is rotated to. */
  readonly positions: Tensor;
  /** u32 `[tokens, 2]`: what each row sees. */
  readonly spans: Tensor;
  /** u32 `[tokens, 2]`: what sees each row. */
  readonly viewers: Tensor;
}

/** A layer's MLP; without a gate its activation acts on `up`. */
function mlpRoles({ linears }: Architecture): MlpModules<LinearRole> {
  return linears.gate === undefined
    ? { activated: "up", factor: undefined, down: "down" }
    : { activated: "gate", factor: "up", down: "down" };
}

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
  /** What attention and MLP give before the norm of it; only in families that have one. */
  readonly #rawAttended: Tensor | undefined;
  readonly #rawMlp: Tensor | undefined;
  /** The stream between attention and MLP. */
  readonly #middle: Tensor;
  readonly #mlp: MlpTape<LinearRole>;

  /**
   * @param places where the rows stand; asked for whenever they are needed, because tables of angles grow
   * @param stream what enters the layer, `[tokens, hidden]`; it must outlive the tape
   */
  constructor(
    readonly decoder: Decoder,
    readonly layer: number,
    deltas: Deltas,
    readonly places: () => Places,
    readonly stream: Tensor,
  ) {
    const own = this.#owned;
    const { architecture, config } = decoder;
    const folded = own.use(
      new FoldedModules<LinearRole>({
        linearOf: (role) => decoder.weights.layer(layer).linears[role]!,
        deltaOf: (role) => deltas.get(linearName(architecture, layer, role)),
        outputsOf: (role) => outputsOf(architecture, config, role),
      }),
    );
    this.#folded = folded;
    this.#attentionInput = own.use(decoder.norm(layer, "attention", stream));
    [this.#queries, this.#rawQueries] = this.#rotated("query");
    [this.#keys, this.#rawKeys] = this.#rotated("key");
    this.#values = own.use(folded.apply("value", this.#attentionInput));
    this.#context = own.use(decoder.attend(this.#queries, this.#keys, this.#values, places().spans));
    const attended = folded.apply("output", this.#context);
    this.#rawAttended = architecture.norms.attentionOut ? own.use(attended) : undefined;
    this.#middle = own.use(this.#written("attentionOut", attended, stream));
    const mlpInput = own.use(decoder.norm(layer, "mlp", this.#middle));
    this.#mlp = own.use(new MlpTape(folded, mlpRoles(architecture), config.activation, mlpInput));
    this.#rawMlp = architecture.norms.mlpOut ? own.use(this.#mlp.output()) : undefined;
  }

  /** Numbers that a tape keeps: for each token, and for the layer's weights with deltas. */
  static size({ config, architecture }: Decoder, layer: number, deltas: Deltas, tokens: number): number {
    const { hiddenSize, mlpSize, queryHeads, keyValueHeads, headDim } = config;
    const { norms, linears } = architecture;
    const heads = (2 * queryHeads + 2 * keyValueHeads) * headDim * (norms.query ? 2 : 1);
    const streams = (3 + (norms.attentionOut ? 1 : 0) + (norms.mlpOut ? 1 : 0)) * hiddenSize;
    const names = new Set(rolesOf(architecture).map((role) => linearName(architecture, layer, role)));
    const weights = FoldedModules.size(deltas, (module) => names.has(module));
    return tokens * (streams + heads + MlpTape.size(mlpSize, linears.gate !== undefined)) + weights;
  }

  /** The stream after the layer, `[tokens, hidden]`; the caller's to dispose. */
  output(): Tensor {
    return this.#written("mlpOut", this.#rawMlp ?? this.#mlp.output(), this.#middle);
  }

  /**
   * Goes back through the layer.
   *
   * @param gradient at the stream after the layer; becomes the gradient at the stream before it
   * @param toInput false: stop once every module was shown, and leave `gradient` half done
   */
  backward(gradient: Tensor, observe: ModuleObserver<LinearRole>, toInput: boolean): void {
    const { decoder, layer } = this;
    {
      using atMlp = this.#beforeNorm("mlpOut", this.#rawMlp, gradient);
      using atMlpInput = this.#mlp.backward(atMlp ?? gradient, observe);
      decoder.normBackward(layer, "mlp", this.#middle, atMlpInput, gradient);
    }
    using atAttended = this.#beforeNorm("attentionOut", this.#rawAttended, gradient);
    using atAttentionInput = this.#backThroughAttention(atAttended ?? gradient, observe, toInput);
    if (atAttentionInput) decoder.normBackward(layer, "attention", this.stream, atAttentionInput, gradient);
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }

  /** Queries or keys at their positions and, where their heads are normed, as they were before. */
  #rotated(role: "query" | "key"): [turned: Tensor, raw: Tensor | undefined] {
    const { decoder, layer } = this;
    const hasNorm = decoder.architecture.norms[role] !== undefined;
    const raw = this.#folded.apply(role, this.#attentionInput);
    const normed = hasNorm ? decoder.norm(layer, role, this.#owned.use(raw)) : raw;
    const turned = this.#owned.use(decoder.rotate(layer, normed, this.places().positions));
    return [turned, hasNorm ? raw : undefined];
  }

  /** A new stream: the one before plus what a part gives, normed where the family does so. Without a norm it takes `added` over. */
  #written(norm: "attentionOut" | "mlpOut", added: Tensor, before: Tensor): Tensor {
    const { decoder, layer } = this;
    const normed = decoder.architecture.norms[norm] ? decoder.norm(layer, norm, added) : added;
    return add(before, normed, { into: normed });
  }

  /** The gradient at what a norm read, where there is one; the caller's to dispose. */
  #beforeNorm(role: NormRole, read: Tensor | undefined, at: Tensor): Tensor | undefined {
    if (!read) return undefined;
    const result = read.device.zeros(read.shape);
    this.decoder.normBackward(this.layer, role, read, at, result);
    return result;
  }

  #backThroughAttention(
    gradient: Tensor,
    observe: ModuleObserver<LinearRole>,
    toInput: boolean,
  ): Tensor | undefined {
    observe(["output"], this.#context, [gradient]);
    using atContext = this.#folded.back("output", gradient);
    const { spans, viewers } = this.places();
    const heads = attentionBackward(
      this.#queries,
      this.#keys,
      this.#values,
      this.#context,
      atContext,
      spans,
      viewers,
      this.decoder.config,
    );
    using atQueries = this.#backThroughRotation("query", heads.queries, this.#rawQueries);
    using atKeys = this.#backThroughRotation("key", heads.keys, this.#rawKeys);
    using atValues = heads.values;
    observe(["query", "key", "value"], this.#attentionInput, [atQueries, atKeys, atValues]);
    if (!toInput) return undefined;
    const atInput = this.#folded.back("query", atQueries);
    this.#folded.back("key", atKeys, atInput);
    return this.#folded.back("value", atValues, atInput);
  }

  /** Takes over `turned`, the gradient at rotated heads; returns the one at what the module gave. */
  #backThroughRotation(role: "query" | "key", turned: Tensor, raw: Tensor | undefined): Tensor {
    const straight = this.decoder.rotate(this.layer, turned, this.places().positions, { inverse: true });
    const atRaw = this.#beforeNorm(role, raw, straight);
    if (!atRaw) return straight;
    straight.dispose();
    return atRaw;
  }
}
