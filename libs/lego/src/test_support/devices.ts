import { CpuDevice, type Device, openDevice } from "@lora-loom/tensor";

/** What a result may differ by from float64, relative to the result. */
export interface DeviceUnderTest {
  readonly device: Device;
  /** Relative Frobenius error that rounding may cause. */
  readonly tolerance: number;
}

let gpu: Promise<Device> | undefined;

async function openGpu(): Promise<Device> {
  const device = await openDevice({ device: "auto" });
  if (device.info.backend === "webgpu") return device;
  throw new Error(
    "these tests need a GPU: `deno task doctor` says how to get one (a software Vulkan driver counts)",
  );
}

/**
 * Registers a test twice: on the CPU device, and on a GPU, hardware or software. Without a GPU the second one fails. The
 * GPU is opened once for all tests of a file, so it outlives each of them.
 */
export function testOnDevices(name: string, body: (under: DeviceUnderTest) => Promise<void>): void {
  Deno.test(`${name} [cpu]`, () => body({ device: new CpuDevice(), tolerance: 1e-12 }));
  Deno.test({
    name: `${name} [gpu]`,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => body({ device: await (gpu ??= openGpu()), tolerance: 1e-5 }),
  });
}
