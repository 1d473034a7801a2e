import type { Device, Tensor } from "@lora-loom/tensor";
import { MergeError } from "../errors.ts";
import type { MergedFactors } from "../methods/method.ts";
import { balance } from "./balance.ts";
import { firstNonFinite } from "./finite.ts";

/** The merged factors of one module in host memory. */
export interface HostFactors {
  readonly a: Float32Array<ArrayBuffer>;
  readonly b: Float32Array<ArrayBuffer>;
}

async function downloadFloat32(device: Device, tensor: Tensor): Promise<Float32Array<ArrayBuffer>> {
  const values = await device.download(tensor);
  return values instanceof Float32Array ? values : new Float32Array(values);
}

function checkFinite(values: Float32Array, label: string, module: string): void {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  if (firstNonFinite(bytes, "f32") < 0) return;
  throw new MergeError(
    "result_not_finite",
    `${label} of the merged ${module} holds NaN or infinity, although the inputs are finite`,
    "lower the adapters' weights, or leave the module out with exclude",
    module,
    "work",
  );
}

/**
 * Takes merged factors from the device, balanced and checked.
 *
 * @throws {MergeError} `result_not_finite`
 * @throws {TensorError} what went wrong on the device since the last wait
 */
export async function downloadMerged(
  device: Device,
  module: string,
  merged: MergedFactors,
): Promise<HostFactors> {
  const a = await downloadFloat32(device, merged.a);
  const b = await downloadFloat32(device, merged.b);
  checkFinite(a, "lora_A", module);
  checkFinite(b, "lora_B", module);
  balance(a, b, merged.a.shape[0]!);
  return { a, b };
}

/** Disposes merged factors. */
export function disposeMerged({ a, b }: MergedFactors): void {
  a.dispose();
  b.dispose();
}
