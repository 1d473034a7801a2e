import type { StoredTensor } from "@lora-loom/formats";
import { cast, type Device, type Tensor } from "@lora-loom/tensor";
import { MergeError } from "../errors.ts";
import type { WeightedFactors } from "../methods/method.ts";
import type { PlannedModule, PlannedSource } from "../plan/plan.ts";
import type { RecipeAdapter } from "../recipe/recipe.ts";
import { firstNonFinite, type StoredFloat } from "./finite.ts";

/** Raw elements of one factor as its file has them, checked to be finite. */
interface RawFactor {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly dtype: StoredFloat;
}

/** One module's factors in host memory, before they go to the device. */
export interface RawModule {
  readonly planned: PlannedModule;
  readonly factors: readonly {
    readonly source: PlannedSource;
    readonly a: RawFactor;
    readonly b: RawFactor;
  }[];
}

/** What of a recipe errors name. */
type PathsOnly = { readonly adapters: readonly Pick<RecipeAdapter, "path">[] };

/** Stored types that a device takes as they are; all others are widened on the way. */
const DEVICE_TYPES: Readonly<Record<string, StoredFloat>> = { F32: "f32", F16: "f16", BF16: "bf16" };

async function readFactor(tensor: StoredTensor): Promise<RawFactor> {
  const dtype = DEVICE_TYPES[tensor.dtype];
  if (dtype) return { bytes: await tensor.read(), dtype };
  const values = await tensor.readFloat32();
  return { bytes: new Uint8Array(values.buffer, values.byteOffset, values.byteLength), dtype: "f32" };
}

function checkFinite(factor: RawFactor, label: string, source: PlannedSource, recipe: PathsOnly): RawFactor {
  const index = firstNonFinite(factor.bytes, factor.dtype);
  if (index < 0) return factor;
  const { path } = recipe.adapters[source.adapter]!;
  throw new MergeError(
    "not_finite",
    `${label} of ${source.module.name} holds NaN or infinity at element ${index}, expected finite numbers`,
    `train or export the adapter again, or leave the module out with exclude: ["${source.module.name}"]`,
    `${path}: ${source.module.name}`,
  );
}

/**
 * Reads all adapters' factors of one module.
 *
 * @throws {MergeError} `not_finite`
 * @throws {FormatError} what reading the files throws
 */
export async function readModule(planned: PlannedModule, recipe: PathsOnly): Promise<RawModule> {
  const factors = [];
  for (const source of planned.sources) {
    const a = checkFinite(await readFactor(source.module.a), "lora_A", source, recipe);
    const b = checkFinite(await readFactor(source.module.b), "lora_B", source, recipe);
    factors.push({ source, a, b });
  }
  return { planned, factors };
}

function uploadFactor(device: Device, { bytes, dtype }: RawFactor, shape: readonly [number, number]): Tensor {
  const stored = device.upload(bytes, shape, dtype);
  if (dtype === "f32") return stored;
  const widened = cast(stored, "f32");
  stored.dispose();
  return widened;
}

/** Brings a module to the device in f32; the caller disposes the tensors. */
export function uploadModule(device: Device, { factors }: RawModule): WeightedFactors[] {
  return factors.map(({ source, a, b }) => {
    const { rank, inFeatures, outFeatures, scale } = source.module;
    return {
      a: uploadFactor(device, a, [rank, inFeatures]),
      b: uploadFactor(device, b, [outFeatures, rank]),
      scale,
      weight: source.weight,
      adapter: source.adapter,
    };
  });
}

/** Releases what {@linkcode uploadModule} made. */
export function disposeFactors(factors: readonly WeightedFactors[]): void {
  for (const { a, b } of factors) {
    a.dispose();
    b.dispose();
  }
}
