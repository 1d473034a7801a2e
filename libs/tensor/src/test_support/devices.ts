import { assertEquals } from "@std/assert";
import { CpuDevice } from "../cpu/cpu_device.ts";
import type { Device } from "../device.ts";
import { openDevice, type OpenDeviceOptions } from "../open_device.ts";

/**
 * Opens the adapter under test: hardware where there is some, else the software driver. Fails where there is none: these
 * tests must not pass because nothing ran. New tensors are poisoned with NaN.
 */
export async function openTestGpu(options: OpenDeviceOptions = {}): Promise<Device> {
  const device = await openDevice({ device: "auto", poison: true, ...options });
  assertEquals(
    device.info.backend,
    "webgpu",
    "no WebGPU adapter: run `deno task setup`, then `deno task doctor`",
  );
  return device;
}

let gpu: Promise<Device> | undefined;

/** The GPU that the tests of one file share. */
export function testGpu(): Promise<Device> {
  return gpu ??= openTestGpu();
}

/** Registers one test for the CPU and one for the GPU. */
export function testOnEachDevice(name: string, body: (device: Device) => Promise<void>): void {
  Deno.test(`${name} [cpu]`, () => body(new CpuDevice()));
  // The device outlives the test, and with it Dawn's timers.
  Deno.test({
    name: `${name} [gpu]`,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const device = await testGpu();
      const before = device.memory.bytes;
      await body(device);
      await device.finish();
      assertEquals(device.memory.bytes, before, "the test or the operation left tensors behind");
    },
  });
}
