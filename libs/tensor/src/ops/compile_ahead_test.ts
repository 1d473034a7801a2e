import { assert, assertEquals, assertGreaterOrEqual } from "@std/assert";
import { CpuDevice } from "../cpu/cpu_device.ts";
import type { Device, DeviceClass } from "../device.ts";
import type { Kernel } from "../gpu/kernel.ts";
import { allKernels } from "../operation.ts";
import "../mod.ts";
import { compileAhead } from "./compile_ahead.ts";

/** A device of a class that notes what it is to compile, and cannot compile one kernel. */
function pretend(kind: DeviceClass): { device: Device; asked: Kernel[] } {
  const asked: Kernel[] = [];
  const compile = (kernels: readonly Kernel[]) => {
    asked.push(...kernels);
    return kernels.some(({ name }) => name.startsWith("cholesky_factor"))
      ? Promise.reject(new Error("no such workgroup memory"))
      : Promise.resolve();
  };
  const features = new Set(kind === "tensor" ? ["chromium-experimental-subgroup-matrix"] : []);
  const device = { info: { class: kind }, features, limits: { subgroupSize: 32 }, compile };
  return { device: device as unknown as Device, asked };
}

Deno.test("compileAhead() asks hardware for registered kernels, each once, and goes on when one cannot be compiled", async () => {
  for (const [kind, least] of [["tensor", 14], ["gpu", 9]] as const) {
    const { device, asked } = pretend(kind);
    await compileAhead(device);
    assertGreaterOrEqual(asked.length, least);
    assertEquals(new Set(asked).size, asked.length);
    const registered = new Set([...allKernels().values()].flat());
    assert(asked.every((kernel) => registered.has(kernel)));
  }
});

Deno.test("compileAhead() leaves software drivers and the CPU alone", async () => {
  const { device, asked } = pretend("software");
  await compileAhead(device);
  await compileAhead(new CpuDevice());
  assertEquals(asked, []);
});
