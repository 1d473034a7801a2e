import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { CpuDevice } from "@lora-loom/tensor";
import { inTemporaryFolder } from "@lora-loom/testing";
import { runMerge } from "../engine/run_merge.ts";
import { MergeError } from "../errors.ts";
import { compareMerges } from "./compare_merges.ts";
import { comparisonReport } from "./html.ts";
import { loadVariants, parseSweep } from "./variants.ts";

const ADAPTERS = new URL("../../../../examples/tiny-llama/adapters", import.meta.url).pathname;

function withRecipe(work: (folder: string, recipe: string) => Promise<void>): Promise<void> {
  return inTemporaryFolder(async (folder) => {
    const recipe = join(folder, "recipe.yaml");
    await writeFile(
      recipe,
      [
        "method: lego",
        `adapters: [{ path: ${ADAPTERS}/language }, { path: ${ADAPTERS}/category, weight: 0.5 }]`,
        "parameters: { rank: 6, features: unit }",
        'include: ["*.layers.0.*.k_proj", "*.layers.1.*.k_proj"]',
        "output: { path: merged }",
        "device: cpu",
      ].join("\n"),
    );
    await work(folder, recipe);
  });
}

Deno.test("parseSweep() counts from the first value to the last, both included, without rounding noise", () => {
  assertEquals(parseSweep("adapters.0.weight=0.2:1.2:0.2"), {
    key: "adapters.0.weight",
    values: [0.2, 0.4, 0.6, 0.8, 1, 1.2],
  });
  assertEquals(parseSweep("parameters.rank=8:8:1").values, [8]);
  assertEquals(parseSweep("adapters.1.weight=1:-1:-1").values, [1, 0, -1]);
  for (
    const wrong of [
      "weight",
      "a=1",
      "a=1:2",
      "a=1:2:0",
      "a=2:1:1",
      "a=1:2:x",
      "a=0:1:0.001",
      "=1:2:1",
      "a=1::2",
    ]
  ) {
    assertEquals(assertThrows(() => parseSweep(wrong), MergeError).code, "sweep_syntax", wrong);
  }
});

Deno.test("loadVariants() gives each method those of the recipe's parameters that it has", () =>
  withRecipe(async (_, recipe) => {
    const variants = await loadVariants(recipe, ["lego", "svd"], parseSweep("adapters.0.weight=0:1:1"));
    assertEquals(variants.map(({ label }) => label), [
      "lego adapters.0.weight=0",
      "lego adapters.0.weight=1",
      "svd adapters.0.weight=0",
      "svd adapters.0.weight=1",
    ]);
    assertEquals(variants[0]!.recipe.parameters.features, "unit");
    assertEquals(variants[2]!.recipe.parameters, { rank: 6 });
    assertEquals(variants[3]!.recipe.adapters.map(({ weight }) => weight), [1, 0.5]);
    const error = await assertRejects(() => loadVariants(recipe, ["svdd"], undefined), MergeError);
    assertEquals(error.code, "unknown_method");
  }));

Deno.test("compareMerges() writes the same bytes as each merge alone, and reports the same figures", () =>
  withRecipe(async (folder, recipe) => {
    const device = new CpuDevice();
    const variants = await loadVariants(
      recipe,
      ["svd", "ties", "knots"],
      parseSweep("adapters.1.weight=0.5:1:0.5"),
    );
    const merges = await compareMerges(variants, { device, directory: folder });
    assertEquals(merges.map(({ label }) => label), variants.map(({ label }) => label));
    for (const [index, merge] of merges.entries()) {
      const alone = {
        ...variants[index]!.recipe,
        output: { ...variants[index]!.recipe.output, path: join(folder, "alone") },
      };
      const summary = await runMerge(alone, { device, force: true });
      const bytes = (directory: string) => readFile(join(directory, "adapter_model.safetensors"));
      assert((await bytes(merge.output)).equals(await bytes(alone.output.path)), merge.label);
      assertEquals(merge.quality, summary.quality);
      assertEquals(merge.rank, summary.rank);
      assertEquals(merge.parameters, 2 * 6 * (256 + 128));
      assertEquals(merge.value, index % 2 === 0 ? 0.5 : 1);
    }
  }));

Deno.test("compareMerges() leaves no half-written adapter when a method refuses", () =>
  withRecipe(async (folder, recipe) => {
    const variants = await loadVariants(recipe, ["svd"], parseSweep("parameters.rank=16:17:1"));
    const error = await assertRejects(
      () => compareMerges(variants, { device: new CpuDevice(), directory: folder }),
      MergeError,
    );
    assertEquals(error.code, "rank_out_of_range");
    await assertRejects(() => readFile(join(folder, "0", "adapter_model.safetensors")));
  }));

Deno.test("comparisonReport() shows every merge and plots what was measured", () => {
  const merge = (label: string, accuracy: number) => ({
    label,
    method: "svd",
    value: null,
    output: "",
    rank: 8,
    parameters: 1000,
    seconds: 0.5,
    accuracy: { "a<b": accuracy },
    quality: {
      cosine_to_sources: { language: 0.5 },
      cosine_to_sum: 1,
      loss: 0.25,
      best_loss: null,
      norm_ratio: 1,
    },
  });
  const page = comparisonReport([merge("svd w=1", 0.75), merge("svd w=2", 0.5)]);
  for (const text of ["svd w=1", "accuracy on a&lt;b", "0.7500", "cosine to language", "lost of the sum"]) {
    assertStringIncludes(page, text);
  }
  assertEquals(page.split("<svg").length - 1, 3);
});
