import { assertEquals, assertLessOrEqual } from "@std/assert";
import {
  denseDeltas,
  type ModuleSpec,
  relativeDistance,
  sumDeltas,
  writeAdapter,
} from "../support/adapters.ts";
import { runCli } from "../support/cli.ts";
import { withFolder } from "../support/paths.ts";

/** Pools of 128 units and more are decided on in threads, several modules at once. */
const MODULES: readonly ModuleSpec[] = Array.from({ length: 6 }, (_, layer) => ({
  name: `model.layers.${layer}.q_proj`,
  inFeatures: 160,
  outFeatures: 144 + 16 * layer,
  rank: 64,
}));
const UNIFORM = { peft_type: "LORA", r: 64, lora_alpha: 128, target_modules: ["q_proj"] };

Deno.test("merge gives the exact sum and the same bytes again when modules are merged at once in threads", async () => {
  await withFolder(async (folder) => {
    for (const [index, name] of ["a", "b"].entries()) {
      await writeAdapter(`${folder}/${name}`, MODULES, { seed: 100 * index, config: UNIFORM });
    }
    const recipe = `${folder}/recipe.yaml`;
    await Deno.writeTextFile(
      recipe,
      "method: lego\nadapters: [{ path: a }, { path: b }]\noutput: { path: out }\ndevice: software\n",
    );
    const merge = async (name: string, parameters: string) => {
      const { code, stderr } = await runCli([
        "merge",
        recipe,
        "--set",
        `parameters=${parameters}`,
        "--output",
        `${folder}/${name}`,
      ]);
      assertEquals(code, 0, stderr);
      return await Deno.readFile(`${folder}/${name}/adapter_model.safetensors`);
    };
    await merge("sum", "{ rank: 128, output_scale: none }");
    const sources = [await denseDeltas(`${folder}/a`), await denseDeltas(`${folder}/b`)];
    assertLessOrEqual(
      relativeDistance(await denseDeltas(`${folder}/sum`), sumDeltas(sources.map((deltas) => [deltas, 1]))),
      1e-5,
    );
    assertEquals(await merge("first", "{ rank: 40 }"), await merge("second", "{ rank: 40 }"));
  });
});
