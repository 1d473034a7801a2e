import type { Device } from "./device.ts";
import type { KernelTime } from "./gpu/kernel_timer.ts";
import { WebGpuDevice } from "./gpu/webgpu_device.ts";

/**
 * What each kernel cost since the device was opened or {@linkcode resetKernelTimes} was called, the costliest first. Empty on the CPU,
 * without `timeKernels`, and on adapters without timestamps.
 */
export function kernelTimes(device: Device): Promise<readonly KernelTime[]> {
  return device instanceof WebGpuDevice ? device.kernelTimes() : Promise.resolve([]);
}

/** Starts {@linkcode kernelTimes} anew. */
export async function resetKernelTimes(device: Device): Promise<void> {
  if (device instanceof WebGpuDevice) await device.resetKernelTimes();
}
