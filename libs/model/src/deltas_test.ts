import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import type { Adapter, LoraModule, StoredTensor } from "@lora-loom/formats";
import { CpuDevice, type CpuTensor } from "@lora-loom/tensor";
import { disposeDeltas } from "./deltas.ts";
import { ModelError } from "./errors.ts";
import { loadDeltas } from "./load_deltas.ts";

function stored(values: readonly number[], shape: readonly number[]): StoredTensor {
  return {
    shape,
    dtype: "F32",
    readFloat32: () => Promise.resolve(Float32Array.from(values)),
  } as unknown as StoredTensor;
}

function adapterOf(...modules: Partial<LoraModule>[]): Adapter {
  const byName = new Map(modules.map((module) => [module.name!, module]));
  return { path: "/in/x", modules: byName } as unknown as Adapter;
}

const module = {
  name: "layer.q",
  rank: 1,
  inFeatures: 3,
  outFeatures: 2,
  scale: 0.5,
  a: stored([1, 2, 3], [1, 3]),
  b: stored([4, -6], [2, 1]),
};

Deno.test("loadDeltas() folds scale and weight into B and leaves A as it is", async () => {
  await using device = new CpuDevice();
  const deltas = await loadDeltas(device, adapterOf(module), 3);
  const { a, b } = deltas.get("layer.q")!;
  assertEquals([a.shape, b.shape], [[1, 3], [2, 1]]);
  assertEquals([...(a as CpuTensor).floats], [1, 2, 3]);
  assertEquals([...(b as CpuTensor).floats], [6, -9]);
  assert(device.memory.bytes > 0);
  disposeDeltas(deltas);
  assertEquals(device.memory.bytes, 0);
});

Deno.test("loadDeltas() names the adapter and the module whose factor is not finite, and leaves nothing behind", async () => {
  await using device = new CpuDevice();
  const broken = { ...module, name: "layer.k", b: stored([1, NaN], [2, 1]) };
  const error = await assertRejects(() => loadDeltas(device, adapterOf(module, broken)), ModelError);
  assertEquals([error.code, error.where], ["non_finite", "/in/x: layer.k"]);
  assertStringIncludes(error.message, "B of layer.k holds NaN at element 1");
  assertEquals(device.memory.bytes, 0);
});
