import { gemm, type Tensor } from "@lora-loom/tensor";
import type { Delta, Deltas } from "../base_model.ts";
import { disposeDeltas } from "../deltas.ts";
import type { GradientObserver } from "./differentiable.ts";

/**
 * Gradients at the factors of deltas, summed over what {@linkcode FactorGradients.observe} is shown: with y = x (W0 + BA)ᵀ and g the
 * gradient at y, that at B is gᵀ(x Aᵀ) and that at A is (g B)ᵀ x.
 */
export class FactorGradients implements Disposable {
  readonly #sums = new Map<string, Delta>();

  constructor(readonly deltas: Deltas) {}

  /** Gradients by module, in the shapes of its factors; only of modules that were shown. */
  get sums(): Deltas {
    return this.#sums;
  }

  /** Takes in one module's input and gradient; modules without a delta are passed over. */
  readonly observe: GradientObserver = ({ module }, input, gradient) => {
    const delta = this.deltas.get(module);
    if (!delta) return;
    using inner = gemm(input, delta.a, { transposeB: true });
    using outer = gemm(gradient, delta.b);
    const sum = this.#sums.get(module);
    const product = (left: Tensor, right: Tensor, into: Tensor | undefined) =>
      gemm(left, right, { transposeA: true, ...(into ? { into, beta: 1 } : {}) });
    const a = product(outer, input, sum?.a), b = product(gradient, inner, sum?.b);
    this.#sums.set(module, { a, b });
  };

  [Symbol.dispose](): void {
    disposeDeltas(this.#sums);
    this.#sums.clear();
  }
}
