import { gemm } from "@lora-loom/tensor";
import type { MergedFactors, ModuleContext, WeightedFactors } from "./method.ts";

/** n × n: `factor` on the diagonal. */
function scaledIdentity(n: number, factor: number): Float32Array<ArrayBuffer> {
  const entries = new Float32Array(n * n);
  for (let i = 0; i < n; i++) entries[i * n + i] = factor;
  return entries;
}

/**
 * PEFT 0.21's `linear`: A' = Σ sign(w_t s_t) √|w_t s_t| A_t and B' = Σ √|w_t s_t| B_t, for equal ranks. Were the sign on both
 * sides, a negative weight would add.
 */
export function sumFactors(
  sources: readonly WeightedFactors[],
  { device }: Pick<ModuleContext, "device">,
): MergedFactors {
  const a = device.zeros(sources[0]!.a.shape);
  const b = device.zeros(sources[0]!.b.shape);
  for (const source of sources) {
    const rank = source.a.shape[0]!;
    const factor = source.weight * source.scale;
    const root = Math.sqrt(Math.abs(factor));
    using ofA = device.upload(scaledIdentity(rank, Math.sign(factor) * root), [rank, rank]);
    using ofB = device.upload(scaledIdentity(rank, root), [rank, rank]);
    gemm(ofA, source.a, { into: a, beta: 1 });
    gemm(source.b, ofB, { into: b, beta: 1 });
  }
  return { a, b };
}
