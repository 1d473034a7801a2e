import { gaussians } from "@lora-loom/testing";
import type { GpuDevice, Tensor } from "@lora-loom/tensor";
import { openSoftwareDevice } from "./software_device.ts";

/** float32 noise, so that both devices start from the same numbers. */
export function noise(shape: readonly number[], seed: number, scale = 1): Float64Array<ArrayBuffer> {
  const count = shape.reduce((product, size) => product * size, 1);
  return gaussians(count, seed).map((value) => Math.fround(scale * value));
}

export async function read(tensor: Tensor): Promise<ArrayLike<number>> {
  return await tensor.device.download(tensor);
}

/** A test with a software device of its own. */
export function gpuTest(name: string, body: (gpu: GpuDevice) => Promise<void>): void {
  Deno.test(name, async () => {
    await using gpu = await openSoftwareDevice();
    await body(gpu);
  });
}
