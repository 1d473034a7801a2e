import { type GpuDevice, openDevice } from "@lora-loom/tensor";

/** The software Vulkan driver, with uninitialised memory poisoned so that a kernel that reads it is found out. */
export async function openSoftwareDevice(): Promise<GpuDevice> {
  return await openDevice({ device: "software", poison: true }) as GpuDevice;
}
