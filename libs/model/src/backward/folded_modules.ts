import { add, gemm, sliceRows, type Tensor } from "@lora-loom/tensor";
import type { Delta } from "../base_model.ts";
import { addBias } from "../ops/add_bias.ts";
import type { Linear } from "../weights.ts";

/** Where a layer finds its modules. */
export interface ModuleSource<Name> {
  linearOf(name: Name): Linear;
  deltaOf(name: Name): Delta | undefined;
  /** Which of the delta's outputs are meant, first and one past the last; nothing where they all are. */
  outputsOf?(name: Name): readonly [start: number, end: number] | undefined;
}

/** A layer's modules with their deltas added to the weights, each made when first asked for; `Name` is what the layer calls them. */
export class FoldedModules<Name> implements Disposable {
  readonly #owned = new DisposableStack();
  readonly #folded = new Map<Name, Tensor>();

  constructor(readonly source: ModuleSource<Name>) {}

  /** W0 + B·A, `[out, in]` */
  weight(name: Name): Tensor {
    const base = this.source.linearOf(name).weight;
    const delta = this.source.deltaOf(name);
    if (!delta) return base;
    const known = this.#folded.get(name);
    if (known) return known;
    const outputs = this.source.outputsOf?.(name);
    using b = outputs && sliceRows(delta.b, ...outputs);
    const change = this.#owned.use(gemm(b ?? delta.b, delta.a));
    const folded = add(base, change, { into: change });
    this.#folded.set(name, folded);
    return folded;
  }

  apply(name: Name, x: Tensor): Tensor {
    const y = gemm(x, this.weight(name), { transposeB: true });
    const { bias } = this.source.linearOf(name);
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
