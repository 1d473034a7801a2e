import { gemm, type Tensor } from "@lora-loom/tensor";
import { adaptiveWeight } from "../adaptive_weights.ts";
import { innerProduct, multiple, squaredNorm } from "../algebra.ts";
import type { Delta } from "../base_model.ts";
import type { AdaptiveWeights } from "../options.ts";

/** A weight W = base + Σ factor · b·a, of which outputs are measured. */
export interface WeightSum {
  /** `[out, in]` */
  readonly base?: Tensor | undefined;
  readonly terms: readonly { readonly delta: Delta; readonly factor: number }[];
}

/** ‖W‖²_F, and tr(W S Wᵀ), which is ‖X Wᵀ‖²_F for S = XᵀX. Both 0 where there is nothing to sum. */
export async function energies(
  gram: Tensor,
  { base, terms }: WeightSum,
): Promise<{ weight: number; output: number }> {
  let weight = base && multiple(base, 1);
  let image = base && gemm(base, gram);
  for (const { delta: { a, b }, factor } of terms) {
    using rows = gemm(a, gram);
    weight = gemm(b, a, { alpha: factor, ...(weight ? { into: weight, beta: 1 } : {}) });
    image = gemm(b, rows, { alpha: factor, ...(image ? { into: image, beta: 1 } : {}) });
  }
  if (!weight || !image) return { weight: 0, output: 0 };
  try {
    return { weight: await squaredNorm(weight), output: await innerProduct(weight, image) };
  } finally {
    weight.dispose();
    image.dispose();
  }
}

/**
 * λ_i of a task at a module from its Gram matrix: ‖W‖²_F / tr(W S_i Wᵀ) with W = W0 + W_i (`full`) or W_i (`delta`). Where the adapter
 * lacks the module, `delta` takes W0 for W_i, and the identity where there is no W0 either: λ_i has to be of the others' scale per
 * input energy, and the identity weighs all directions alike.
 */
export async function adaptiveWeightFromGram(
  kind: AdaptiveWeights,
  gram: Tensor,
  delta: Delta | undefined,
  baseWeight: Tensor | undefined,
): Promise<number> {
  if (kind === "none") return 1;
  const terms = delta ? [{ delta, factor: 1 }] : [];
  const takesBase = kind === "full" || !delta;
  if (takesBase && !baseWeight) {
    const { trace, size } = await traceOf(gram);
    return adaptiveWeight(kind, size, trace);
  }
  const { weight, output } = await energies(gram, { base: takesBase ? baseWeight : undefined, terms });
  return adaptiveWeight(kind, weight, output);
}

async function traceOf(gram: Tensor): Promise<{ trace: number; size: number }> {
  const size = gram.shape[0]!;
  const values = await gram.device.download(gram);
  let trace = 0;
  for (let i = 0; i < size; i++) trace += values[i * size + i]!;
  return { trace, size };
}
