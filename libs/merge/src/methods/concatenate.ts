import { measureSum } from "../engine/measure_deltas.ts";
import type { MergedFactors, ModuleContext, WeightedFactors } from "./method.ts";
import { stackFactors } from "./stack_factors.ts";

/** The exact weighted sum at rank Σ r_t. */
export async function concatenate(
  sources: readonly WeightedFactors[],
  { device }: Pick<ModuleContext, "device">,
): Promise<MergedFactors> {
  const stacked = stackFactors(
    device,
    sources.map(({ a, b, scale, weight }) => ({ a, b, factor: scale * weight })),
  );
  return { ...stacked, deltas: await measureSum(device, sources) };
}
