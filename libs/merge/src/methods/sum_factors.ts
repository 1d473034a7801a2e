import { gemm } from "@lora-loom/tensor";
import type { MergedFactors, ModuleContext, WeightedFactors } from "./method.ts";

/** n × n: `factor` on the diagonal. */
function scaledIdentity(n: number, factor: number): Float32Array<ArrayBuffer> {
  const entries = new Float32Array(n * n);
  for (let i = 0; i < n; i++) entries[i * n + i] = factor;
  return entries;
}

/** PEFT's `linear`: A' = Σ √(w_t s_t) A_t and B' = Σ √(w_t s_t) B_t. All ranks equal, no factor negative. */
export function sumFactors(
  sources: readonly WeightedFactors[],
  { device }: Pick<ModuleContext, "device">,
): MergedFactors {
  const a = device.zeros(sources[0]!.a.shape);
  const b = device.zeros(sources[0]!.b.shape);
  for (const source of sources) {
    const rank = source.a.shape[0]!;
    using root = device.upload(scaledIdentity(rank, Math.sqrt(source.weight * source.scale)), [rank, rank]);
    gemm(root, source.a, { into: a, beta: 1 });
    gemm(source.b, root, { into: b, beta: 1 });
  }
  return { a, b };
}
