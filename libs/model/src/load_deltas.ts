import type { Adapter, LoraModule } from "@lora-loom/formats";
import type { Device } from "@lora-loom/tensor";
import type { Delta, Deltas } from "./base_model.ts";
import { disposeDeltas } from "./deltas.ts";
import { ModelError } from "./errors.ts";

/**
 * Puts an adapter's factors on a device, with scale and weight folded into B: ΔW = weight · s · B·A. Release them with
 * `disposeDeltas`.
 *
 * @param weight factor of the whole adapter
 * @throws {ModelError} `non_finite` naming the adapter and the module whose factors hold NaN or infinity
 */
export async function loadDeltas(device: Device, adapter: Adapter, weight = 1): Promise<Deltas> {
  const deltas = new Map<string, Delta>();
  try {
    for (const module of adapter.modules.values()) {
      deltas.set(module.name, await loadDelta(device, module, weight, adapter.path));
    }
  } catch (error) {
    disposeDeltas(deltas);
    throw error;
  }
  return deltas;
}

async function loadDelta(device: Device, module: LoraModule, weight: number, path: string): Promise<Delta> {
  const { rank, inFeatures, outFeatures } = module;
  const a = await readFinite(module, "A", path);
  const b = Float64Array.from(await readFinite(module, "B", path), (value) => value * module.scale * weight);
  return { a: device.upload(a, [rank, inFeatures], "f32"), b: device.upload(b, [outFeatures, rank], "f32") };
}

async function readFinite(
  module: LoraModule,
  factor: "A" | "B",
  path: string,
): Promise<Float32Array<ArrayBuffer>> {
  const values = await (factor === "A" ? module.a : module.b).readFloat32();
  const at = values.findIndex((value) => !Number.isFinite(value));
  if (at < 0) return values;
  throw new ModelError(
    "non_finite",
    `lora_${factor} of ${module.name} holds ${values[at]} at element ${at}, expected finite numbers`,
    "train or export the adapter again, or leave the module out",
    `${path}: ${module.name}`,
  );
}
