import { assertEquals, assertStringIncludes } from "@std/assert";
import { basename, join } from "node:path";
import {
  assertRefused,
  inTemporaryFolder,
  rawFloat32File,
  type RawTensor,
  REPOSITORY,
} from "../test_support.ts";
import { openModelWeights } from "./sharded.ts";

const one = (value: number): RawTensor => ({ shape: [1], values: [value] });

async function writeShard(folder: string, name: string, tensors: Record<string, RawTensor>) {
  await Deno.writeFile(join(folder, name), rawFloat32File(tensors, { format: "pt" }));
}

async function writeIndex(folder: string, weightMap: unknown) {
  const index = JSON.stringify({ metadata: { total_size: 8 }, weight_map: weightMap });
  await Deno.writeTextFile(join(folder, "model.safetensors.index.json"), index);
}

const FIRST = "model-00001-of-00002.safetensors";
const SECOND = "model-00002-of-00002.safetensors";

async function writeModel(folder: string) {
  await writeShard(folder, FIRST, { a: one(1) });
  await writeShard(folder, SECOND, { b: one(2) });
  await writeIndex(folder, { a: FIRST, b: SECOND });
}

Deno.test("openModelWeights() reads the shards of an index as one", () =>
  inTemporaryFolder(async (folder) => {
    await writeModel(folder);
    using weights = await openModelWeights(folder);
    assertEquals([
      ...await weights.tensors.get("a")!.readFloat32(),
      ...await weights.tensors.get("b")!.readFloat32(),
    ], [1, 2]);
    assertEquals(weights.metadata, { format: "pt" });
    assertEquals(weights.files.map((path) => basename(path)), [
      "model.safetensors.index.json",
      FIRST,
      SECOND,
    ]);
  }));

Deno.test("openModelWeights() reads shards without an index when all are there", () =>
  inTemporaryFolder(async (folder) => {
    await writeModel(folder);
    await Deno.remove(join(folder, "model.safetensors.index.json"));
    using weights = await openModelWeights(folder);
    assertEquals([...weights.tensors.keys()], ["a", "b"]);
    await Deno.remove(join(folder, FIRST));
    await assertRefused(() => openModelWeights(folder), "shard_missing");
  }));

Deno.test("openModelWeights() reads the example's base model", async () => {
  using weights = await openModelWeights(join(REPOSITORY, "examples/tiny-llama/base"));
  assertEquals(weights.tensors.get("model.embed_tokens.weight")!.shape, [2048, 256]);
  assertEquals(weights.tensors.get("model.embed_tokens.weight")!.dtype, "BF16");
});

Deno.test("openModelWeights() names the shard or tensor that is missing", () =>
  inTemporaryFolder(async (folder) => {
    await writeModel(folder);
    await writeIndex(folder, { a: FIRST, c: SECOND });
    assertStringIncludes(
      (await assertRefused(() => openModelWeights(folder), "shard_tensor_missing")).where,
      " c",
    );
    await writeIndex(folder, { a: FIRST, b: "model-00003-of-00003.safetensors" });
    assertStringIncludes(
      (await assertRefused(() => openModelWeights(folder), "shard_missing")).where,
      "model-00003",
    );
  }));

Deno.test("openModelWeights() refuses a tensor that stands in two shards", () =>
  inTemporaryFolder(async (folder) => {
    await writeModel(folder);
    await writeShard(folder, SECOND, { a: one(1), b: one(2) });
    await assertRefused(() => openModelWeights(folder), "duplicate_tensor");
  }));

Deno.test("openModelWeights() refuses an index that leads out of the folder or is malformed", () =>
  inTemporaryFolder(async (folder) => {
    for (
      const shard of [
        "../x.safetensors",
        "/etc/x.safetensors",
        "a\\b.safetensors",
        "model.bin",
        3,
        "a\0.safetensors",
      ]
    ) {
      await writeIndex(folder, { a: shard });
      await assertRefused(() => openModelWeights(folder), "index_invalid");
    }
    for (const map of [null, [], {}, "x"]) {
      await writeIndex(folder, map);
      await assertRefused(() => openModelWeights(folder), "index_invalid");
    }
    const path = join(folder, "model.safetensors.index.json");
    await Deno.writeTextFile(path, '{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}');
    await assertRefused(() => openModelWeights(folder), "duplicate_key");
    await Deno.writeTextFile(path, "[]");
    await assertRefused(() => openModelWeights(folder), "json_invalid");
  }));

Deno.test("openModelWeights() refuses pickles with the command that converts them, and empty folders", () =>
  inTemporaryFolder(async (folder) => {
    await assertRefused(() => openModelWeights(folder), "weights_missing");
    await Deno.writeTextFile(join(folder, "pytorch_model.bin"), "");
    assertStringIncludes(
      (await assertRefused(() => openModelWeights(folder), "pickle_refused")).fix,
      "weights_only=True",
    );
    await assertRefused(() => openModelWeights(join(folder, "missing")), "not_found");
  }));
