import { cast, dot, gemm, gram, scaleRows, sumOfSquares, type Tensor } from "@lora-loom/tensor";
import type { Delta } from "./base_model.ts";
import type { AdaptiveWeights } from "./options.ts";

/** The weight that λ_i speaks of, W0 + W_i or W_i alone, ready to measure what it makes of inputs. */
export interface MeasuredWeight extends Disposable {
  /** ‖D_i^½ X_i Wᵀ‖²_F of one batch, `[1]`, for X_i `[tokens, in]` and D_i^½ `[tokens]`. A module's own bias has no part in it. */
  outputEnergy(inputs: Tensor, rootWeights: Tensor): Tensor;
  /** The same, tr(W E Wᵀ), of inputs with the Gram matrix E = X_iᵀ D_i X_i, `[in, in]`. */
  outputEnergyOf(gram: Tensor): Tensor;
  /** ‖W‖²_F, `[1]`. */
  energy(): Tensor;
}

/**
 * W0 + W_i (`full`) or W_i (`delta`). Without a delta, `delta` falls back on W0: the weight has to be finite, and W0 has the same scale
 * per input energy.
 *
 * @param delta `undefined` where the adapter lacks the module
 */
export function measuredWeight(
  baseWeight: Tensor,
  delta: Delta | undefined,
  kind: "full" | "delta",
): MeasuredWeight {
  return kind === "delta" && delta ? new FactoredWeight(delta) : new DenseWeight(baseWeight, delta);
}

class DenseWeight implements MeasuredWeight {
  readonly #weight: Tensor;

  constructor(baseWeight: Tensor, delta: Delta | undefined) {
    this.#weight = cast(baseWeight, "f32");
    if (delta) gemm(delta.b, delta.a, { into: this.#weight, beta: 1 });
  }

  outputEnergy(inputs: Tensor, rootWeights: Tensor): Tensor {
    using weighted = scaleRows(inputs, rootWeights);
    // The roundings of millions of outputs, to 11 bits, leave their sum of squares right to seven digits.
    using output = gemm(weighted, this.#weight, { transposeB: true, precision: "f16" });
    return sumOfSquares(output);
  }

  outputEnergyOf(gram: Tensor): Tensor {
    // As with the roundings of outputs.
    using image = gemm(this.#weight, gram, { precision: "f16" });
    return dot(image, this.#weight);
  }

  energy(): Tensor {
    return sumOfSquares(this.#weight);
  }

  [Symbol.dispose](): void {
    this.#weight.dispose();
  }
}

class FactoredWeight implements MeasuredWeight {
  /** BᵀB */
  readonly #outputs: Tensor;

  constructor(readonly delta: Delta) {
    this.#outputs = gram(delta.b, { of: "columns" });
  }

  outputEnergy(inputs: Tensor, rootWeights: Tensor): Tensor {
    using inner = gemm(inputs, this.delta.a, { transposeB: true });
    using weighted = scaleRows(inner, rootWeights);
    using products = gram(weighted, { of: "columns" });
    return dot(products, this.#outputs);
  }

  outputEnergyOf(gram: Tensor): Tensor {
    using image = gemm(this.delta.a, gram);
    using products = gemm(image, this.delta.a, { transposeB: true });
    return dot(products, this.#outputs);
  }

  energy(): Tensor {
    using products = gram(this.delta.a, { of: "rows" });
    return dot(products, this.#outputs);
  }

  [Symbol.dispose](): void {
    this.#outputs.dispose();
  }
}

/** λ_i = ‖W‖²_F / ‖D_i^½ X_i Wᵀ‖²_F; 1 for `none`, and where the output is zero. */
export function adaptiveWeight(kind: AdaptiveWeights, weightEnergy: number, outputEnergy: number): number {
  return kind === "none" || !(outputEnergy > 0) ? 1 : weightEnergy / outputEnergy;
}
