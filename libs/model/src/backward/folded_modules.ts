import { add, gemm, type Tensor } from "@lora-loom/tensor";
import type { Delta } from "../base_model.ts";
import { addBias } from "../ops/add_bias.ts";
import type { Linear } from "../weights.ts";

/** A layer's modules with their deltas added to the weights, each made when first asked for; `Name` is what the layer calls them. */
export class FoldedModules<Name> implements Disposable {
  readonly #owned = new DisposableStack();
  readonly #folded = new Map<Name, Tensor>();

  constructor(
    readonly linearOf: (name: Name) => Linear,
    readonly deltaOf: (name: Name) => Delta | undefined,
  ) {}

  /** W0 + B·A, `[out, in]` */
  weight(name: Name): Tensor {
    const base = this.linearOf(name).weight;
    const delta = this.deltaOf(name);
    if (!delta) return base;
    const known = this.#folded.get(name);
    if (known) return known;
    const change = this.#owned.use(gemm(delta.b, delta.a));
    const folded = add(base, change, { into: change });
    this.#folded.set(name, folded);
    return folded;
  }

  apply(name: Name, x: Tensor): Tensor {
    const y = gemm(x, this.weight(name), { transposeB: true });
    const { bias } = this.linearOf(name);
    if (bias) addBias(bias, y);
    return y;
  }

  /** The gradient at what a module read, from the one at what it gave; added to `into` if that is given. */
  back(name: Name, gradient: Tensor, into?: Tensor): Tensor {
    return gemm(gradient, this.weight(name), into ? { into, beta: 1 } : {});
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
