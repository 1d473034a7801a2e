import { CpuDevice } from "./cpu/cpu_device.ts";
import process from "node:process";
import type { Device, DeviceInfo } from "./device.ts";
import { TensorError } from "./errors.ts";
import { chooseAdapter } from "./gpu/adapters.ts";
import type { Profile } from "./gpu/dawn.ts";
import { WebGpuDevice } from "./gpu/webgpu_device.ts";
import { digestOf, type ProductChoices, readTuning, tuningKey, tuningPath } from "./tuning/tuning_file.ts";

/** Which device to open: `auto` takes a hardware GPU, else a software Vulkan driver, else the CPU. */
export type DeviceChoice = "auto" | "gpu" | "software" | "cpu";

/** Options of {@linkcode openDevice}. */
export interface OpenDeviceOptions {
  /** Default `auto`. */
  readonly device?: DeviceChoice;
  /** Part of the name of the adapter to use, when there are several of the kind asked for. */
  readonly adapter?: string;
  /** `fast` gives up bounds checks and validation on the GPU for speed. Default `safe`. */
  readonly profile?: Profile;
  /** The most GPU memory that tensors and buffers kept for reuse may take. Default: what the driver allows. */
  readonly memoryBudgetBytes?: number;
  /** Time every dispatch, for `kernelTimes()` of the device; dispatches then never overlap. For profiles and benchmarks. */
  readonly timeKernels?: boolean;
  /**
   * Choose the kernels of matrix products as `deno task tune` found fastest on this adapter, from the file that it left in the user's cache
   * folder, or from the one named. Default: true where the environment has `LORA_LOOM_TUNED=1`, else the fixed table decides. The same file
   * gives the same choices.
   */
  readonly tuned?: boolean | string;
  /** Told why a file of tuning is ignored: it is missing, damaged, or of another adapter, driver or version. Default: `console.warn`. */
  readonly warn?: (message: string) => void;
  /** Fill new tensors of undefined contents with NaN, to find kernels that read them. For tests. */
  readonly poison?: boolean;
  /** Bind at most this many bytes at once, as if the adapter allowed no more, to find errors in windows. For tests. */
  readonly maxBindingBytes?: number;
  /** Run the kernels of this class of device, whatever the adapter is. For tests. */
  readonly assumeClass?: "tensor" | "gpu" | "software";
}

const CHOICES: readonly string[] = ["auto", "gpu", "software", "cpu"] satisfies DeviceChoice[];

/**
 * Opens a device. Only `auto` falls back from one kind to the next; `device.info` says what it became.
 *
 * @throws {TensorError} `no_gpu`, `no_software_driver`, `no_adapter`, `unknown_device`, `no_dawn`
 */
export async function openDevice(options: OpenDeviceOptions = {}): Promise<Device> {
  const choice = options.device ?? "auto";
  if (!CHOICES.includes(choice)) {
    throw new TensorError(
      "unknown_device",
      `device is ${JSON.stringify(choice)}; expected one of ${CHOICES.join(", ")}`,
      "use `device: auto`",
      "device",
    );
  }
  if (choice === "cpu") return new CpuDevice();
  const adapter = await chooseAdapter(choice, options.adapter, options.profile ?? "safe");
  if (!adapter) return new CpuDevice();
  const info = options.assumeClass ? { ...adapter.info, class: options.assumeClass } : adapter.info;
  const productChoices = await tunedChoices(options, info);
  const tuning = productChoices.size > 0 ? { tuning: digestOf(productChoices) } : {};
  return new WebGpuDevice(adapter.dawn, { ...info, ...tuning }, { ...options, productChoices });
}

/** What tuning found for a device, where that is asked for and there is such a file. */
async function tunedChoices(
  { tuned = process.env.LORA_LOOM_TUNED === "1", warn = console.warn, profile = "safe" }: OpenDeviceOptions,
  info: DeviceInfo,
): Promise<ProductChoices> {
  if (tuned === false) return new Map();
  const key = tuningKey(info, profile);
  return await readTuning(tuned === true ? tuningPath(key) : tuned, key, warn) ?? new Map();
}
