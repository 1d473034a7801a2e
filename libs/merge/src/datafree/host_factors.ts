import type { Device } from "@lora-loom/tensor";
import type { WeightedFactors } from "../methods/method.ts";
import type { HostFactors } from "./entries.ts";

/** One adapter's factors in host memory, with its weight in the recipe. */
export interface WeightedHostFactors extends HostFactors {
  readonly weight: number;
  /** Position in the recipe. */
  readonly adapter: number;
}

/** Reads the factors of one module back from the device. */
export function downloadFactors(
  device: Device,
  sources: readonly WeightedFactors[],
): Promise<WeightedHostFactors[]> {
  return Promise.all(sources.map(async ({ a, b, scale, weight, adapter }) => {
    const [rank, inFeatures] = a.shape as [number, number];
    const [hostA, hostB] = await Promise.all([device.download(a), device.download(b)]);
    return {
      rank,
      inFeatures,
      outFeatures: b.shape[0]!,
      scale,
      weight,
      adapter,
      a: Float64Array.from(hostA),
      b: Float64Array.from(hostB),
    };
  }));
}
