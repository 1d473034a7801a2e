/** Adapters of fused and of transposed modules through a merge, and the merge back in the model. */
import { assertEquals } from "@std/assert";
import { openAdapter, openSafetensors } from "@lora-loom/formats";
import { disposeDeltas, loadDeltas, openModel } from "@lora-loom/model";
import { CpuDevice } from "@lora-loom/tensor";
import { assertRelativelyClose } from "@lora-loom/testing";
import { runJson } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";

for (const [family, transposed] of [["gpt2", true], ["phi3", false]] as const) {
  Deno.test(`merge of halves of a ${family} adapter gives what PEFT computes with the whole`, async () => {
    await withFolder(async (folder) => {
      const fixture = repositoryPath(`tests/fixtures/families/${family}`);
      const half = `  - { path: ${fixture}/adapter, weight: 0.5 }\n`;
      const recipe = `method: cat\nadapters:\n${half}${half}output: { path: out }\n`;
      await Deno.writeTextFile(`${folder}/recipe.yaml`, recipe);
      await runJson(["merge", `${folder}/recipe.yaml`, "--device", "cpu"]);
      const config = JSON.parse(await Deno.readTextFile(`${folder}/out/adapter_config.json`));
      assertEquals(config.fan_in_fan_out, transposed);

      await using device = new CpuDevice();
      using model = await openModel(device, fixture);
      using merged = await openAdapter(`${folder}/out`);
      const deltas = await loadDeltas(device, merged);
      using reference = await openSafetensors(`${fixture}/reference.safetensors`);
      const read = async (name: string) => await reference.tensors.get(name)!.readFloat32();
      const tokens = Uint32Array.from(await read("long.input_ids"));
      using logits = model.forward([tokens], deltas);
      assertRelativelyClose(await device.download(logits), await read("long.adapted_logits"), 1e-5);
      disposeDeltas(deltas);
    });
  });
}
