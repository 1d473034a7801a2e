/** Merges whose inputs or output are in other layouts than PEFT's. */
import { assert, assertEquals, assertLess, assertStringIncludes } from "@std/assert";
import { convertAdapter, openAdapter, readBaseModel } from "@lora-loom/formats";
import { diffAdapters } from "@lora-loom/merge";
import { type CliError, runCli, runJson } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";
import { safetensorsBytes } from "../support/safetensors.ts";

const BASE = repositoryPath("examples/tiny-llama/base");
const [LANGUAGE, CATEGORY] = ["language", "category"].map((name) =>
  repositoryPath(`examples/tiny-llama/adapters/${name}`)
) as [string, string];

async function merge(folder: string, name: string, recipe: Record<string, unknown>): Promise<string> {
  const path = `${folder}/${name}.yaml`;
  await Deno.writeTextFile(path, JSON.stringify({ device: "cpu", ...recipe }));
  await runJson(["merge", path]);
  return `${folder}/${name}`;
}

Deno.test("adapters of one model in four layouts merge as if all were PEFT's", () =>
  withFolder(async (folder) => {
    const paths = [LANGUAGE];
    for (const to of ["kohya", "mlx", "gguf"] as const) {
      await convertAdapter(CATEGORY, `${folder}/${to}`, { to, base: BASE });
      paths.push(`${folder}/${to}`);
    }
    const recipe = { method: "cat", adapters: paths.map((path) => ({ path })) };
    const mixed = await merge(folder, "mixed", { ...recipe, output: { path: "mixed" } });
    const weighted = [{ path: LANGUAGE }, { path: CATEGORY, weight: 3 }];
    const plain = await merge(folder, "plain", { ...recipe, adapters: weighted, output: { path: "plain" } });
    assertLess((await diffAdapters(mixed, plain)).overall, 1e-6);
  }));

for (const format of ["kohya", "diffusers", "mlx", "gguf", "original"] as const) {
  Deno.test(`a merge writes ${format} with the deltas that it writes for PEFT, and says where it loads`, () =>
    withFolder(async (folder) => {
      const recipe = { method: "cat", base_model: BASE, adapters: [{ path: LANGUAGE }, { path: CATEGORY }] };
      const other = await merge(folder, format, { ...recipe, output: { path: format, format } });
      const plain = await merge(folder, "peft", { ...recipe, output: { path: "peft" } });
      using adapter = await openAdapter(other, { base: await readBaseModel(BASE) });
      assertEquals(adapter.format, format);
      assertLess((await diffAdapters(other, plain)).overall, 1e-6);
      const { serving } = JSON.parse(await Deno.readTextFile(`${other}/loom.json`));
      assertEquals([serving.llama_cpp.ok, serving.mlx.ok], [format === "gguf", format === "mlx"]);
      assertStringIncludes(await Deno.readTextFile(`${other}/README.md`), "| program | loads it |");
      if (format !== "mlx") assertEquals(adapter.metadata["modelspec.merged_from"], "language, category");
    }));
}

Deno.test("a recipe drops what it names beside an adapter's path, and records it", () =>
  withFolder(async (folder) => {
    const front = "lora_unet_down_blocks_0_attentions_0_proj_in";
    const filled = (...shape: number[]) => ({
      shape,
      values: Array(shape.reduce((a, b) => a * b, 1)).fill(0.5),
    });
    const file = `${folder}/dora.safetensors`;
    await Deno.writeFile(
      file,
      safetensorsBytes({
        [`${front}.lora_down.weight`]: filled(2, 4),
        [`${front}.lora_up.weight`]: filled(3, 2),
        [`${front}.dora_scale`]: filled(3, 1),
      }),
    );
    const recipe = { method: "cat", adapters: [{ path: file }], output: { path: "out", format: "kohya" } };
    await Deno.writeTextFile(`${folder}/refused.yaml`, JSON.stringify({ ...recipe, device: "cpu" }));
    const { code, stdout } = await runCli(["merge", `${folder}/refused.yaml`, "--json"]);
    const { error } = JSON.parse(stdout) as { error: CliError };
    assertEquals([code, error.code], [2, "unsupported_variant"]);
    assertStringIncludes(error.fix, "drop: [dora]");
    const output = await merge(folder, "out", { ...recipe, adapters: [{ path: file, drop: ["dora"] }] });
    const record = JSON.parse(await Deno.readTextFile(`${output}/loom.json`));
    assertEquals(record.recipe.adapters[0].drop, ["dora"]);
    assert(
      record.warnings.some(({ code, message }: CliError) =>
        code === "dropped" && message.includes("dora_scale")
      ),
    );
  }));
