import { add, type Tensor } from "@lora-loom/tensor";
import { FoldedModules } from "../backward/folded_modules.ts";
import type { Tape } from "../backward/layer_run.ts";
import { MlpTape, type ModuleObserver } from "../backward/mlp_tape.ts";
import type { Deltas } from "../base_model.ts";
import { rmsNormBackward } from "../ops/rms_norm_backward.ts";
import { AttentionTape, type View } from "./attention_tape.ts";
import type { T5Layers } from "./layers.ts";
import { crossAttention, mlpOf, selfAttention, type Stack } from "./modules.ts";

/** What a decoder's blocks attend to beside themselves. */
export interface Encoded {
  /** The encoder's output, `[prompt tokens, hidden]`. */
  readonly output: Tensor;
  readonly view: View;
}

/** Everything that the way back through one block needs, from the block's input. */
export class BlockTape implements Tape {
  readonly #owned = new DisposableStack();
  readonly #self: AttentionTape;
  readonly #cross: AttentionTape | undefined;
  /** The stream before the MLP. */
  readonly #middle: Tensor;
  readonly #mlp: MlpTape<string>;

  /**
   * @param stream what enters the block, `[tokens, hidden]`; it must outlive the tape
   * @param encoded only of a decoder
   */
  constructor(
    readonly layers: T5Layers,
    readonly stack: Stack,
    readonly block: number,
    deltas: Deltas,
    view: View,
    stream: Tensor,
    encoded?: Encoded,
  ) {
    const own = this.#owned;
    const { config, weights } = layers;
    const folded = own.use(
      new FoldedModules<string>({
        linearOf: (module) => weights.linear(module),
        deltaOf: (module) => deltas.get(module),
      }),
    );
    const attend = (...rest: [names: AttentionTape["names"], view: View, stream: Tensor, encoded?: Tensor]) =>
      own.use(new AttentionTape(layers, folded, ...rest));
    this.#self = attend(selfAttention(stack, block), view, stream);
    const attended = own.use(this.#self.output());
    this.#cross = encoded && attend(crossAttention(block), encoded.view, attended, encoded.output);
    this.#middle = this.#cross ? own.use(this.#cross.output()) : attended;
    const { inputs: [activated, factor], output, norm } = mlpOf(stack, block, config);
    const input = own.use(layers.norm(this.#middle, norm));
    const modules = { activated: activated!, factor, down: output };
    this.#mlp = own.use(new MlpTape(folded, modules, config.activation, input));
  }

  /**
   * Numbers that a tape keeps: for each token, and for the block's weights with deltas.
   *
   * @param rows tokens of the stack, and of the prompts
   */
  static size(
    layers: T5Layers,
    stack: Stack,
    block: number,
    deltas: Deltas,
    rows: { readonly own: number; readonly prompts: number },
  ): number {
    const { hiddenSize, mlpSize, gated } = layers.config;
    const weights = FoldedModules.size(deltas, (module) => module.startsWith(`${stack}.block.${block}.`));
    const cross = stack === "decoder"
      ? AttentionTape.size(layers, rows.own, rows.prompts) + rows.own * hiddenSize
      : 0;
    const mlp = rows.own * (2 * hiddenSize + MlpTape.size(mlpSize, gated));
    return AttentionTape.size(layers, rows.own) + cross + mlp + weights;
  }

  output(): Tensor {
    const added = this.#mlp.output();
    return add(this.#middle, added, { into: added });
  }

  /**
   * Goes back through the block.
   *
   * @param gradient at the stream after the block; becomes the gradient at the stream before it
   * @param atEncoded takes in the gradient at what was encoded; only of a decoder
   * @param toInput false: stop once every module was shown, and leave `gradient` half done
   */
  backward(
    gradient: Tensor,
    observe: ModuleObserver<string>,
    toInput: boolean,
    atEncoded?: Tensor,
  ): void {
    const { config, weights } = this.layers;
    {
      using atInput = this.#mlp.backward(gradient, observe);
      const gain = weights.norm(mlpOf(this.stack, this.block, config).norm);
      rmsNormBackward(this.#middle, gain, atInput, config.normEpsilon, gradient);
    }
    this.#cross?.backward(gradient, observe, { atEncoded: atEncoded! });
    this.#self.backward(gradient, observe, { toInput });
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
