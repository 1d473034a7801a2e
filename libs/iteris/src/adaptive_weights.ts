import { gemm, sumOfSquares, type Tensor } from "@lora-loom/tensor";
import { multiple, throughDelta, weightedSquares } from "./algebra.ts";
import type { Delta } from "./base_model.ts";
import type { AdaptiveWeights } from "./options.ts";

/** The weight that λ_i speaks of: W0 + W_i, or W_i alone. */
export interface ExpertWeight {
  readonly baseWeight: Tensor;
  /** `undefined` where the adapter lacks the module. */
  readonly delta: Delta | undefined;
}

/**
 * ‖D_i^½ X_i Wᵀ‖²_F of one batch, `[1]`, W being W0 + W_i (`full`) or W_i (`delta`). The module's own bias has no part in it.
 * Without a delta, `delta` falls back on W0: the weight has to be finite, and W0 has the same scale per input energy.
 *
 * @param inputs X_i, `[tokens, in]`
 * @param rootWeights D_i^½, `[tokens]`
 */
export function outputEnergy(
  inputs: Tensor,
  rootWeights: Tensor,
  { baseWeight, delta }: ExpertWeight,
  kind: "full" | "delta",
): Tensor {
  using output = kind === "delta" && delta
    ? throughDelta(inputs, delta)
    // The roundings of millions of outputs, to 11 bits, leave their sum of squares right to seven digits.
    : gemm(inputs, baseWeight, { transposeB: true, precision: "f16" });
  if (kind === "full" && delta) throughDelta(inputs, delta, { into: output });
  return weightedSquares(output, rootWeights);
}

/** ‖W‖²_F of the same weight, `[1]`. */
export function weightEnergy({ baseWeight, delta }: ExpertWeight, kind: "full" | "delta"): Tensor {
  using weight = kind === "delta" && delta ? gemm(delta.b, delta.a) : multiple(baseWeight, 1);
  if (kind === "full" && delta) gemm(delta.b, delta.a, { into: weight, beta: 1 });
  return sumOfSquares(weight);
}

/** λ_i = ‖W‖²_F / ‖D_i^½ X_i Wᵀ‖²_F; 1 for `none`, and where the output is zero. */
export function adaptiveWeight(kind: AdaptiveWeights, weightEnergy: number, outputEnergy: number): number {
  return kind === "none" || !(outputEnergy > 0) ? 1 : weightEnergy / outputEnergy;
}
