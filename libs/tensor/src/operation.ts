import type { CpuDevice } from "./cpu/cpu_device.ts";
import type { Device } from "./device.ts";
import { TensorError } from "./errors.ts";
import type { GpuDevice } from "./gpu/gpu_device.ts";
import type { Kernel } from "./gpu/kernel.ts";
import type { Tensor } from "./tensor.ts";

/** One operation: its GPU form, its float64 twin, and every kernel the GPU form may use. */
export interface Operation<Args extends readonly unknown[], Result> {
  /** Name in errors and profiles, such as `gemm`. */
  readonly name: string;
  /** All kernel variants, hardware ones included, so that they can be compiled where no GPU is. */
  readonly kernels: readonly Kernel[];
  /** Queues the work on a GPU. */
  gpu(device: GpuDevice, ...args: Args): Result;
  /** Does the same in float64. Shares no arithmetic with the kernels. */
  cpu(device: CpuDevice, ...args: Args): Result;
}

const registry = new Map<string, readonly Kernel[]>();

/** Every kernel of every operation defined so far, by operation: what a compile test iterates over. */
export function allKernels(): ReadonlyMap<string, readonly Kernel[]> {
  return registry;
}

function deviceOf(name: string, args: readonly unknown[]): Device {
  let found: Device | undefined;
  for (const arg of args.flat()) {
    if (!isTensor(arg)) continue;
    if (arg.disposed) {
      throw new TensorError(
        "tensor_disposed",
        `${name} got a tensor that was already disposed`,
        "dispose it after its last use",
        name,
      );
    }
    if (found && found !== arg.device) {
      throw new TensorError(
        "device_mismatch",
        `${name} got tensors of two devices`,
        "upload all operands to one device",
        name,
      );
    }
    found = arg.device;
  }
  if (!found) throw new TensorError("no_tensor", `${name} got no tensor`, "pass at least one tensor", name);
  return found;
}

function isTensor(value: unknown): value is Tensor {
  return typeof value === "object" && value !== null && "device" in value && "dtype" in value &&
    "shape" in value;
}

/**
 * Turns an {@linkcode Operation} into a function that runs where its tensors live. Other libraries define theirs the same
 * way; the device is found from the tensor arguments (arrays of tensors count).
 */
export function defineOperation<Args extends readonly unknown[], Result>(
  operation: Operation<Args, Result>,
): (...args: Args) => Result {
  registry.set(operation.name, operation.kernels);
  return (...args) => {
    const device = deviceOf(operation.name, args);
    return device.info.backend === "cpu"
      ? operation.cpu(device as CpuDevice, ...args)
      : operation.gpu(device as GpuDevice, ...args);
  };
}
