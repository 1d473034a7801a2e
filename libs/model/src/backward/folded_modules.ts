import { gemm, type Tensor } from "@lora-loom/tensor";
import type { Delta, Deltas } from "../base_model.ts";
import { applyLinear, foldDelta } from "../linear.ts";
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

  /** Numbers that the folded weights of some modules take. */
  static size(deltas: Deltas, isOwn: (module: string) => boolean): number {
    return [...deltas].filter(([module]) => isOwn(module))
      .reduce((sum, [, { a, b }]) => sum + a.shape[1]! * b.shape[0]!, 0);
  }

  /** W0 + B·A, `[out, in]` */
  weight(name: Name): Tensor {
    const linear = this.source.linearOf(name);
    const delta = this.source.deltaOf(name);
    if (!delta) return linear.weight;
    const known = this.#folded.get(name);
    if (known) return known;
    const folded = this.#owned.use(foldDelta(linear, delta, this.source.outputsOf?.(name)));
    this.#folded.set(name, folded);
    return folded;
  }

  apply(name: Name, x: Tensor): Tensor {
    const { bias } = this.source.linearOf(name);
    return applyLinear(x, { weight: this.weight(name), ...(bias && { bias }) }, undefined);
  }

  /** The gradient at what a module read, from the one at what it gave; added to `into` if that is given. */
  back(name: Name, gradient: Tensor, into?: Tensor): Tensor {
    return gemm(gradient, this.weight(name), into ? { into, beta: 1 } : {});
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
