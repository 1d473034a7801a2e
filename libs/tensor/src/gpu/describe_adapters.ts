import { existsSync, readdirSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import type { DeviceClass } from "../device.ts";
import { TensorError } from "../errors.ts";
import { findAdapters, type FoundAdapter, subgroupMatrixConfigs } from "./adapters.ts";
import { type Profile, type Toggles, togglesFor } from "./dawn.ts";
import { findSoftwareDriver, hasVulkanLoader, type SoftwareDriver } from "./software_driver.ts";

/** Something that stands in the way, with what to do about it. */
export interface AdapterProblem {
  readonly code: string;
  readonly message: string;
  readonly fix: string;
  /** The adapter, driver file or library concerned. */
  readonly where: string;
}

/** Limits of an adapter that decide what fits and which kernels run. */
export interface AdapterLimits {
  readonly maxBufferSize: number;
  readonly maxStorageBufferBindingSize: number;
  readonly maxStorageBuffersPerShaderStage: number;
  readonly maxComputeWorkgroupStorageSize: number;
  readonly maxComputeInvocationsPerWorkgroup: number;
}

/** One adapter as Dawn sees it. */
export interface AdapterReport {
  readonly name: string;
  readonly vendor: string;
  readonly architecture: string;
  readonly driver: string;
  readonly class: Exclude<DeviceClass, "cpu">;
  readonly features: readonly string[];
  readonly limits: AdapterLimits;
  /** Smallest and largest subgroup; 0 where subgroups are not offered. */
  readonly subgroupSizes: readonly [number, number];
  /** Inputs and results of matrix units, such as `f16 × f16 → f32, 16×16×16`. */
  readonly matrixUnits: readonly string[];
  /** Dawn toggles this library asks for on this adapter. */
  readonly toggles: Toggles;
  readonly problems: readonly AdapterProblem[];
}

/** Everything that decides which device a program gets. */
export interface GpuReport {
  readonly adapters: readonly AdapterReport[];
  /** Files that announce Vulkan drivers to the loader; empty where that is not how drivers are found. */
  readonly driverFiles: readonly string[];
  /** The software driver inside the project, when a set-up put one there. */
  readonly softwareDriver: SoftwareDriver | undefined;
  /** Problems that concern no single adapter. */
  readonly problems: readonly AdapterProblem[];
}

/** Looks at every adapter that Dawn accepts and says what is amiss. Opens no device. */
export async function describeAdapters(profile: Profile = "safe"): Promise<GpuReport> {
  const problems: AdapterProblem[] = [];
  let adapters: AdapterReport[] = [];
  try {
    adapters = (await findAdapters(profile)).map((found) => describe(found, profile));
  } catch (error) {
    if (!(error instanceof TensorError)) throw error;
    problems.push({ code: error.code, message: error.message, fix: error.fix, where: error.where });
  }
  const driverFiles = process.platform === "linux" ? vulkanDriverFiles() : [];
  if (process.platform === "linux") problems.push(...driverProblems(adapters, driverFiles));
  return { adapters, driverFiles, softwareDriver: softwareDriver(problems), problems };
}

function softwareDriver(problems: AdapterProblem[]): SoftwareDriver | undefined {
  try {
    return findSoftwareDriver();
  } catch (error) {
    if (!(error instanceof TensorError)) throw error;
    // Dawn was not loaded because of the same file; say it once.
    if (!problems.some(({ code }) => code === error.code)) {
      problems.push({ code: error.code, message: error.message, fix: error.fix, where: error.where });
    }
    return undefined;
  }
}

function describe(found: FoundAdapter, profile: Profile): AdapterReport {
  const { adapter, name } = found;
  const { info, limits } = adapter;
  const features = [...adapter.features].sort();
  return {
    name,
    vendor: info.vendor,
    architecture: info.architecture,
    driver: info.description,
    class: found.class,
    features,
    limits: {
      maxBufferSize: limits.maxBufferSize,
      maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
      maxStorageBuffersPerShaderStage: limits.maxStorageBuffersPerShaderStage,
      maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
      maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
    },
    subgroupSizes: features.includes("subgroups") ? [info.subgroupMinSize, info.subgroupMaxSize] : [0, 0],
    matrixUnits: subgroupMatrixConfigs(adapter).map(({ componentType, resultComponentType, M, N, K }) =>
      `${componentType} × ${componentType} → ${resultComponentType}, ${M}×${N}×${K}`
    ),
    toggles: togglesFor(profile, name),
    problems: adapterProblems(found, features),
  };
}

/** Mesa releases from which lavapipe offers everything Dawn and the kernels want. */
const GOOD_MESA = 25;

function adapterProblems(
  { adapter, name, class: adapterClass }: FoundAdapter,
  features: readonly string[],
): AdapterProblem[] {
  const problems: AdapterProblem[] = [];
  const { vendor, description } = adapter.info;
  const mesa = /Mesa (\d+)/.exec(description);
  if (mesa && Number(mesa[1]) < GOOD_MESA) {
    problems.push({
      code: "old_mesa",
      message: `the driver is Mesa ${mesa[1]}; this library is tested with ${GOOD_MESA} and newer`,
      fix:
        "install mesa-vulkan-drivers 25 or newer, or run `deno task setup` for a driver inside the project",
      where: name,
    });
  }
  if (adapterClass === "software") {
    problems.push({
      code: "software_adapter",
      message: "this adapter computes on the CPU: right, but slow",
      fix: "nothing to do for small models and tests; for large ones use a machine with a GPU",
      where: name,
    });
  }
  if (vendor === "nvidia" && !features.includes("shader-f16")) {
    problems.push({
      code: "no_f16",
      message: "the GPU offers no 16-bit floats although the toggle for them is on",
      fix: "update the NVIDIA driver to 535 or newer",
      where: name,
    });
  }
  if (vendor === "nvidia" && adapterClass === "gpu") {
    problems.push({
      code: "no_matrix_units",
      message: "the driver shows no matrix units for 16-bit floats (VK_KHR_cooperative_matrix)",
      fix: "update the NVIDIA driver to 535 or newer; GPUs before Turing have none",
      where: name,
    });
  }
  return problems;
}

/** What keeps Vulkan drivers from becoming adapters. */
function driverProblems(
  adapters: readonly AdapterReport[],
  driverFiles: readonly string[],
): AdapterProblem[] {
  if (hasVulkanLoader() === false) {
    return [{
      code: "no_vulkan_loader",
      message: "libvulkan.so.1 was not found",
      fix:
        "run `deno task setup`, or install the package libvulkan1 (Debian, Ubuntu) or vulkan-loader (Fedora)",
      where: "libvulkan.so.1",
    }];
  }
  const problems = driverFiles.filter((file) => !existsSync(file)).map((file) => ({
    code: "missing_driver_file",
    message: `the environment names the driver file ${file}, which does not exist`,
    fix: "correct or unset VK_DRIVER_FILES, VK_ICD_FILENAMES and VK_ADD_DRIVER_FILES",
    where: file,
  }));
  if (adapters.length > 0) return problems;
  return [
    ...problems,
    driverFiles.length === 0
      ? {
        code: "no_vulkan_driver",
        message: "no Vulkan driver is installed",
        fix:
          "run `deno task setup` for a software driver inside the project, or install your GPU's Vulkan driver",
        where: "vulkan",
      }
      : {
        code: "no_usable_driver",
        message: `Vulkan drivers are installed (${
          driverFiles.join(", ")
        }), but Dawn accepts none of their devices`,
        fix:
          "Mesa's software driver must be 23 or newer: run `deno task setup` for one inside the project; in a container, " +
          "pass the GPU through with its graphics capability (NVIDIA_DRIVER_CAPABILITIES=all)",
        where: driverFiles.join(", "),
      },
  ];
}

/** The files from which the Vulkan loader learns of drivers. */
function vulkanDriverFiles(): string[] {
  const { env } = process;
  const split = (list: string | undefined) => (list ?? "").split(":").filter((path) => path !== "");
  const chosen = split(env.VK_DRIVER_FILES ?? env.VK_ICD_FILENAMES);
  if (chosen.length > 0) return chosen;
  const folders = [
    ...split(env.XDG_CONFIG_DIRS ?? "/etc/xdg"),
    "/etc",
    env.XDG_DATA_HOME ?? join(homedir(), ".local/share"),
    ...split(env.XDG_DATA_DIRS ?? "/usr/local/share:/usr/share"),
  ].map((folder) => join(folder, "vulkan", "icd.d"));
  const installed = folders.filter(existsSync).flatMap((folder) =>
    readdirSync(folder).filter((name) => name.endsWith(".json")).map((name) => join(folder, name))
  );
  return [...split(env.VK_ADD_DRIVER_FILES), ...installed];
}
