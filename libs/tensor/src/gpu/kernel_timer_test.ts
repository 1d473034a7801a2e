import { assert, assertEquals } from "@std/assert";
import { gemm } from "../ops/gemm.ts";
import { kernelTimes, resetKernelTimes } from "../kernel_times.ts";
import { openDevice } from "../open_device.ts";

Deno.test("kernelTimes() counts every dispatch, over several submissions", async () => {
  await using device = await openDevice({ timeKernels: true });
  const x = device.upload(new Float32Array(64), [8, 8]);
  for (let i = 0; i < 100; i++) gemm(x, x).dispose();
  const [time, ...others] = await kernelTimes(device);
  assertEquals(others, []);
  assertEquals(time!.dispatches, 100);
  assert(time!.kernel.startsWith("gemm_nn"));
  assert(time!.seconds > 0 && time!.seconds < 10);
  await resetKernelTimes(device);
  assertEquals(await kernelTimes(device), []);
});

Deno.test("kernelTimes() is empty when the device was opened without timeKernels, and on the CPU", async () => {
  for (const options of [{}, { device: "cpu" }] as const) {
    await using device = await openDevice(options);
    const x = device.upload(new Float32Array(64), [8, 8]);
    gemm(x, x).dispose();
    assertEquals(await kernelTimes(device), []);
  }
});
