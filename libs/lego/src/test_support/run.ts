import type { Device } from "@lora-loom/tensor";
import type { AdapterFactors, MergedFactors } from "../factor_stack.ts";
import { type LegoResult, mergeModule } from "../merge_module.ts";
import type { LegoOptions } from "../options.ts";
import { denseDelta, type HostAdapter } from "./dense_oracle.ts";

/** A merged module in host memory. */
export interface HostResult {
  readonly delta: Float64Array<ArrayBuffer>;
  readonly a: Float64Array<ArrayBuffer>;
  readonly b: Float64Array<ArrayBuffer>;
  readonly rank: number;
}

export function uploadAdapters(device: Device, adapters: readonly HostAdapter[]): AdapterFactors[] {
  return adapters.map(({ a, b, rank, scale, weight }) => ({
    a: device.upload(a, [rank, a.length / rank]),
    b: device.upload(b, [b.length / rank, rank]),
    scale,
    weight,
  }));
}

/** Downloads and disposes a result, and multiplies it out in float64. */
export async function collect(device: Device, result: MergedFactors): Promise<HostResult> {
  const rank = result.a.shape[0]!;
  const a = Float64Array.from(await device.download(result.a));
  const b = Float64Array.from(await device.download(result.b));
  result.a.dispose();
  result.b.dispose();
  return { a, b, rank, delta: denseDelta({ a, b, rank, scale: 1, weight: 1 }) };
}

/** `mergeModule` on adapters in host memory. */
export async function mergeHost(
  device: Device,
  adapters: readonly HostAdapter[],
  options: LegoOptions,
): Promise<HostResult & Pick<LegoResult, "report" | "clusters">> {
  const uploaded = uploadAdapters(device, adapters);
  const result = await mergeModule(uploaded, options);
  for (const { a, b } of uploaded) {
    a.dispose();
    b.dispose();
  }
  return { ...await collect(device, result), report: result.report, clusters: result.clusters };
}
