import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { assertRefused, inTemporaryFolder, rawFloat32File, REPOSITORY, zeros } from "../test_support.ts";
import { readBaseModel } from "./base_model.ts";

Deno.test("readBaseModel() reads the type, the heads and the modules of a model's folder", async () => {
  const base = await readBaseModel(join(REPOSITORY, "examples/tiny-llama/base"));
  assertEquals([base.modelType, base.headCount, base.keyValueHeadCount], ["llama", 4, 2]);
  assertEquals(base.moduleNames.includes("model.layers.3.self_attn.q_proj"), true);
});

Deno.test("readBaseModel() reads a pipeline's components, and the language model's part of a configuration", () =>
  inTemporaryFolder(async (folder) => {
    const config = { model_type: "llava", text_config: { model_type: "llama", num_attention_heads: 6 } };
    await Deno.writeTextFile(join(folder, "config.json"), JSON.stringify(config));
    await Deno.mkdir(join(folder, "unet"));
    const weights = rawFloat32File({ "conv_in.weight": zeros(1), "conv_in.bias": zeros(1) });
    await Deno.writeFile(join(folder, "unet", "diffusion_pytorch_model.safetensors"), weights);
    const base = await readBaseModel(folder);
    assertEquals([base.modelType, base.headCount, base.keyValueHeadCount, base.moduleNames], [
      "llama",
      6,
      6,
      ["unet.conv_in"],
    ]);
  }));

Deno.test("readBaseModel() answers base_invalid when a folder holds no model", () =>
  inTemporaryFolder(async (folder) => {
    const error = await assertRefused(() => readBaseModel(folder), "base_invalid");
    assertStringIncludes(error.fix, "base model");
  }));
