/** Adapters that other projects have published, where a checkout has them beside it. */
import { assert, assertEquals, assertLess } from "@std/assert";
import { convertAdapter, openAdapter } from "@lora-loom/formats";
import { diffAdapters, inspectAdapter } from "@lora-loom/merge";
import { existsSync } from "node:fs";
import { runJson } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";

const FOLDER = repositoryPath("../shared/wild");

/** File, layout, number of modules, rank, and what must be dropped to read it. */
const FILES = [
  ["sd15-weapon/pytorch_lora_weights.safetensors", "diffusers", 128, 4, []],
  ["cloneofsimo/analog_svd_rank4.safetensors", "cloneofsimo", 192, 4, []],
  ["cloneofsimo/lora_disney.safetensors", "cloneofsimo", 192, 1, ["tokens"]],
] as const;

/** The files that are at hand. They are optional: what they show is tested with generated files too. */
function filesAtHand() {
  const found = FILES.filter(([file]) => existsSync(`${FOLDER}/${file}`));
  if (found.length < FILES.length) {
    console.log(`${FILES.length - found.length} published adapters are not at hand`);
  }
  return found;
}

Deno.test("published adapters are read, inspected and converted without a change of ΔW", () =>
  withFolder(async (folder) => {
    for (const [file, format, modules, rank, drop] of filesAtHand()) {
      const path = `${FOLDER}/${file}`;
      const inspection = await inspectAdapter(path, { drop });
      assertEquals([inspection.format, inspection.modules.length, inspection.ranks], [format, modules, [
        rank,
      ]]);
      assert(inspection.norm > 0 && inspection.serving.comfyui.ok === (format === "diffusers"), file);
      const output = `${folder}/${modules}-${rank}.safetensors`;
      await convertAdapter(path, output, { to: "kohya", drop });
      const back = `${folder}/back-${modules}-${rank}`;
      await convertAdapter(output, back, { to: "diffusers" });
      if (drop.length > 0) continue;
      assertLess((await diffAdapters(back, path)).overall, 1e-12, file);
    }
  }));

Deno.test("published adapters of two layouts merge into one file, and what was dropped is recorded", () =>
  withFolder(async (folder) => {
    const found = filesAtHand();
    if (found.length < FILES.length) return;
    const recipe = {
      method: "lego",
      adapters: found.map(([file, , , , drop]) => ({ path: `${FOLDER}/${file}`, drop })),
      parameters: { rank: 4 },
      output: { path: "merged", format: "diffusers" },
      device: "cpu",
    };
    await Deno.writeTextFile(`${folder}/recipe.yaml`, JSON.stringify(recipe));
    const { warnings } = await runJson<{ warnings: { code: string; message: string }[] }>([
      "merge",
      `${folder}/recipe.yaml`,
    ]);
    assert(warnings.some(({ code, message }) => code === "dropped" && message.includes("<s1>")));
    using merged = await openAdapter(`${folder}/merged`);
    assertEquals([merged.format, merged.modules.size], ["diffusers", 192]);
  }));
