import type { DeviceClass, DeviceInfo } from "../device.ts";
import { TensorError } from "../errors.ts";
import { createInstance, listAdapterNames, type Profile, requestAdapter } from "./dawn.ts";
import type { DawnObjects } from "./webgpu_device.ts";

/** An adapter before a device was requested from it, with the instance that has to outlive it. */
export interface FoundAdapter {
  readonly gpu: GPU;
  readonly adapter: GPUAdapter;
  /** Name as the driver gives it. */
  readonly name: string;
  readonly class: Exclude<DeviceClass, "cpu">;
}

/** All adapters that Dawn accepts, the most powerful first. */
export async function findAdapters(profile: Profile): Promise<FoundAdapter[]> {
  const names = [...new Set(await listAdapterNames(profile))];
  const found = await Promise.all(names.map(async (name) => {
    const gpu = await createInstance({ profile, adapter: name });
    const adapter = await requestAdapter(gpu);
    return adapter ? [{ gpu, adapter, name, class: adapterClass(adapter) }] : [];
  }));
  return found.flat();
}

/** A configuration of subgroup matrices, as Dawn lists it. */
interface SubgroupMatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

function adapterClass(adapter: GPUAdapter): FoundAdapter["class"] {
  if (adapter.info.isFallbackAdapter) return "software";
  return subgroupMatrixConfigs(adapter).some((config) =>
      config.componentType === "f16" && config.resultComponentType === "f32" &&
      [config.M, config.N, config.K].every((size) => size === 16)
    )
    ? "tensor"
    : "gpu";
}

/** The subgroup matrices of an adapter; empty where it has none. */
export function subgroupMatrixConfigs(adapter: GPUAdapter): readonly SubgroupMatrixConfig[] {
  const info = adapter.info as GPUAdapterInfo & { subgroupMatrixConfigs?: Iterable<SubgroupMatrixConfig> };
  return [...info.subgroupMatrixConfigs ?? []];
}

/** Features that kernels may use; asked for where the adapter has them. */
const WANTED_FEATURES = [
  "shader-f16",
  "subgroups",
  "subgroup-size-control",
  "chromium-experimental-subgroup-matrix",
  "timestamp-query",
];

/** Limits that are raised from the standard's defaults to what the adapter offers. */
const WANTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupSizeZ",
] as const satisfies readonly (keyof GPUSupportedLimits)[];

/** Opens the adapter's device with every feature and limit that kernels can use. */
export async function requestDevice(
  { gpu, adapter }: Pick<FoundAdapter, "gpu" | "adapter">,
): Promise<DawnObjects> {
  const offered = adapter.features as unknown as ReadonlySet<string>;
  const device = await adapter.requestDevice({
    requiredFeatures: WANTED_FEATURES.filter((feature) => offered.has(feature)) as GPUFeatureName[],
    requiredLimits: Object.fromEntries(WANTED_LIMITS.map((name) => [name, adapter.limits[name]])),
  });
  return { gpu, adapter, device };
}

/** What an adapter says of itself. */
function deviceInfo(found: FoundAdapter): DeviceInfo {
  const { vendor, description } = found.adapter.info;
  return { backend: "webgpu", class: found.class, name: found.name, vendor, driver: description };
}

/**
 * The adapter for a choice of device, opened; undefined when `auto` finds none and the CPU is to be used.
 *
 * @throws {TensorError} `no_gpu`, `no_software_driver`, `no_adapter`
 */
export async function chooseAdapter(
  choice: "auto" | "gpu" | "software",
  name: string | undefined,
  profile: Profile,
): Promise<{ dawn: DawnObjects; info: DeviceInfo } | undefined> {
  const adapters = await findAdapters(profile);
  const software = (found: FoundAdapter) => found.class === "software";
  const candidates = choice === "auto"
    ? [...adapters.filter((found) => !software(found)), ...adapters.filter(software)]
    : adapters.filter((found) => software(found) === (choice === "software"));
  const chosen = candidates.find((found) => !name || found.name.toLowerCase().includes(name.toLowerCase()));
  if (chosen) return { dawn: await requestDevice(chosen), info: deviceInfo(chosen) };
  if (choice === "auto" && !name) return undefined;
  throw missing(choice, name, adapters);
}

function missing(
  choice: "auto" | "gpu" | "software",
  name: string | undefined,
  adapters: readonly FoundAdapter[],
): TensorError {
  const found = adapters.map((adapter) => `${adapter.name} (${adapter.class})`).join(", ") || "none";
  if (name) {
    return new TensorError(
      "no_adapter",
      `no ${choice === "auto" ? "" : `${choice} `}adapter has ${
        JSON.stringify(name)
      } in its name; found: ${found}`,
      "leave the adapter's name out, or use part of a name that `deno task doctor` lists",
      "adapter",
    );
  }
  return choice === "gpu"
    ? new TensorError(
      "no_gpu",
      `no hardware GPU was found; adapters: ${found}`,
      "install the GPU's Vulkan driver and see `deno task doctor`, or use `device: software`, `cpu` or `auto`",
      "device",
    )
    : new TensorError(
      "no_software_driver",
      `no software Vulkan driver was found; adapters: ${found}`,
      "run `deno task setup`, which puts one into the project, or install mesa-vulkan-drivers 25 or newer",
      "device",
    );
}
