import { copy, multiply, type Tensor } from "@lora-loom/tensor";
import { activate, type Activation } from "../ops/activation.ts";
import { activationBackward, gatedBackward } from "../ops/activation_backward.ts";
import { siluMul } from "../ops/silu_mul.ts";
import type { FoldedModules } from "./folded_modules.ts";

/** Receives what several modules read and the gradients at their outputs. */
export type ModuleObserver<Name> = (
  names: readonly Name[],
  input: Tensor,
  gradients: readonly Tensor[],
) => void;

/** The modules of an MLP. */
export interface MlpModules<Name> {
  /** Its output is activated. */
  readonly activated: Name;
  /** Its output multiplies the activated one, in gated MLPs. */
  readonly factor: Name | undefined;
  readonly down: Name;
}

/** Everything that the way back through an MLP needs, from its input. */
export class MlpTape<Name> implements Disposable {
  readonly #owned = new DisposableStack();
  /** Before the activation. */
  readonly #raw: Tensor;
  readonly #factor: Tensor | undefined;
  /** What the last module reads. */
  readonly #hidden: Tensor;

  /** @param input what the first modules read, `[tokens, hidden]`; it must outlive the tape */
  constructor(
    readonly folded: FoldedModules<Name>,
    readonly modules: MlpModules<Name>,
    readonly activation: Activation,
    readonly input: Tensor,
  ) {
    const { activated, factor } = modules;
    this.#raw = this.#owned.use(folded.apply(activated, input));
    this.#factor = factor === undefined ? undefined : this.#owned.use(folded.apply(factor, input));
    this.#hidden = this.#owned.use(this.#activate());
  }

  /** Numbers kept for each token. */
  static size(mlpSize: number, gated: boolean): number {
    return (gated ? 3 : 2) * mlpSize;
  }

  /** What the MLP adds to the stream; the caller's to dispose. */
  output(): Tensor {
    return this.folded.apply(this.modules.down, this.#hidden);
  }

  /** The gradient at the input, from the one at the output. */
  backward(gradient: Tensor, observe: ModuleObserver<Name>): Tensor {
    const { folded, modules, input } = this;
    observe([modules.down], this.#hidden, [gradient]);
    using atHidden = folded.back(modules.down, gradient);
    if (this.#factor === undefined || modules.factor === undefined) {
      activationBackward(this.activation, this.#raw, atHidden);
      observe([modules.activated], input, [atHidden]);
      return folded.back(modules.activated, atHidden);
    }
    const { gate, up } = gatedBackward(this.activation, this.#raw, this.#factor, atHidden);
    using atRaw = gate;
    using atFactor = up;
    observe([modules.activated, modules.factor], input, [atRaw, atFactor]);
    return folded.back(modules.factor, atFactor, folded.back(modules.activated, atRaw));
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }

  #activate(): Tensor {
    if (this.#factor && this.activation === "silu") return siluMul(this.#raw, this.#factor);
    const hidden = copy(this.#raw);
    activate(this.activation, hidden);
    return this.#factor ? multiply(hidden, this.#factor, { into: hidden }) : hidden;
  }
}
