import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { openAdapter } from "./open_adapter.ts";
import {
  assertRefused,
  factors,
  inTemporaryFolder,
  rawFloat32File,
  REPOSITORY,
  writePeftFolder,
  zeros,
} from "./test_support.ts";

const Q = "model.layers.0.q_proj";
const CONFIG = { r: 2, lora_alpha: 2 };

Deno.test("openAdapter() reads a single weight file with the configuration beside it", () =>
  inTemporaryFolder(async (folder) => {
    const path = await writePeftFolder(join(folder, "a"), CONFIG, factors(Q, 2, 3, 3));
    using adapter = await openAdapter(join(path, "adapter_model.safetensors"));
    assertEquals([...adapter.modules.keys()], [Q]);
  }));

Deno.test("openAdapter() answers config_missing when a file has PEFT's keys and no configuration", () =>
  inTemporaryFolder(async (folder) => {
    await Deno.writeFile(join(folder, "adapter_model.safetensors"), rawFloat32File(factors(Q, 2, 3, 3)));
    await assertRefused(() => openAdapter(folder), "config_missing");
    await assertRefused(() => openAdapter(join(folder, "adapter_model.safetensors")), "config_missing");
  }));

Deno.test("openAdapter() reads sharded adapter weights", () =>
  inTemporaryFolder(async (folder) => {
    const path = await writePeftFolder(join(folder, "a"), CONFIG, {});
    await Deno.remove(join(path, "adapter_model.safetensors"));
    const shards = ["adapter_model-00001-of-00002.safetensors", "adapter_model-00002-of-00002.safetensors"];
    const tensors = Object.entries(factors(Q, 2, 3, 3));
    for (const [i, [key, tensor]] of tensors.entries()) {
      await Deno.writeFile(join(path, shards[i]!), rawFloat32File({ [key]: tensor }));
    }
    const weight_map = Object.fromEntries(tensors.map(([key], i) => [key, shards[i]]));
    await Deno.writeTextFile(
      join(path, "adapter_model.safetensors.index.json"),
      JSON.stringify({ weight_map }),
    );
    using adapter = await openAdapter(path);
    assertEquals([...adapter.modules.keys()], [Q]);
    assertEquals(adapter.files.length, 4);
  }));

Deno.test("openAdapter() refuses pickles with the command that converts them", () =>
  inTemporaryFolder(async (folder) => {
    await Deno.writeTextFile(join(folder, "adapter_config.json"), '{"peft_type":"LORA"}');
    await Deno.writeTextFile(join(folder, "adapter_model.bin"), "PK");
    for (const path of [folder, join(folder, "adapter_model.bin")]) {
      const error = await assertRefused(() => openAdapter(path), "pickle_refused");
      assertStringIncludes(error.fix, "python -c");
      assertStringIncludes(error.fix, "adapter_model.safetensors");
    }
  }));

Deno.test("openAdapter() points to the adapters in the subfolders of a folder without one", () =>
  inTemporaryFolder(async (folder) => {
    await writePeftFolder(join(folder, "first"), CONFIG, factors(Q, 2, 3, 3));
    await Deno.writeTextFile(join(folder, "README.md"), "");
    const error = await assertRefused(() => openAdapter(folder), "no_adapter");
    assertStringIncludes(error.fix, join(folder, "first"));
  }));

Deno.test("openAdapter() refuses folders that are empty, ambiguous or missing", () =>
  inTemporaryFolder(async (folder) => {
    await assertRefused(() => openAdapter(folder), "no_adapter");
    await assertRefused(() => openAdapter(join(folder, "missing")), "not_found");
    for (const name of ["x", "y"]) {
      await Deno.writeFile(join(folder, `${name}.safetensors`), rawFloat32File({}));
    }
    const error = await assertRefused(() => openAdapter(folder), "ambiguous_weights");
    assertStringIncludes(error.message, "x.safetensors and y.safetensors");
  }));

Deno.test("openAdapter() answers unknown_layout for a model's weights, naming some of its keys", () =>
  inTemporaryFolder(async (folder) => {
    await Deno.writeFile(
      join(folder, "model.safetensors"),
      rawFloat32File({ "model.norm.weight": zeros(4) }),
    );
    const error = await assertRefused(() => openAdapter(folder), "unknown_layout");
    assertStringIncludes(error.message, "model.norm.weight");
  }));

Deno.test("openAdapter() closes the files of an adapter that it refuses", () =>
  inTemporaryFolder(async (folder) => {
    const path = await writePeftFolder(join(folder, "a"), { ...CONFIG, use_dora: true }, factors(Q, 2, 3, 3));
    const openFiles = async () => (await Array.fromAsync(Deno.readDir("/proc/self/fd"))).length;
    const before = await openFiles();
    for (let i = 0; i < 50; i++) await assertRefused(() => openAdapter(path), "unsupported_config");
    assert(await openFiles() < before + 25, "descriptors leak");
  }));

Deno.test("Adapter.close() ends reading", async () => {
  const adapter = await openAdapter(join(REPOSITORY, "examples/tiny-llama/adapters/speech"));
  const { a } = adapter.modules.values().next().value!;
  assertEquals((await a.readFloat32()).length, 8 * 688);
  adapter.close();
  await assertRefused(() => a.read(), "file_closed");
});
