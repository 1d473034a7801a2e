import { assertEquals } from "@std/assert";
import { CpuDevice, type Device, openDevice } from "@lora-loom/tensor";

let gpu: Promise<Device> | undefined;

/** Hardware where there is some, else the software driver; fails where there is neither. New tensors are poisoned with NaN. */
async function openTestGpu(): Promise<Device> {
  const device = await openDevice({ device: "auto", poison: true });
  assertEquals(
    device.info.backend,
    "webgpu",
    "no WebGPU adapter: run `deno task setup`, then `deno task doctor`",
  );
  return device;
}

/** Registers a test on the GPU that all tests of one file share. */
export function testOnGpu(name: string, body: (device: Device) => Promise<void>): void {
  // The device outlives the test, and with it Dawn's timers.
  Deno.test({
    name,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => body(await (gpu ??= openTestGpu())),
  });
}

/** Registers one test for the CPU and one for the GPU. */
export function testOnEachDevice(name: string, body: (device: Device) => Promise<void>): void {
  Deno.test(`${name} [cpu]`, () => body(new CpuDevice()));
  testOnGpu(`${name} [gpu]`, body);
}
