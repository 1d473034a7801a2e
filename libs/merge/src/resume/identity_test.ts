import { assertEquals } from "@std/assert";
import { mkdir, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { CpuDevice } from "@lora-loom/tensor";
import { inTemporaryFolder } from "@lora-loom/testing";
import type { Plan } from "../plan/plan.ts";
import { recipeFromObject } from "../recipe/load.ts";
import { identityOf, type Work } from "./identity.ts";

function withBaseModel(body: (folder: string) => Promise<void>): Promise<void> {
  return inTemporaryFolder(async (folder) => {
    await mkdir(join(folder, "base"));
    await writeFile(join(folder, "base/config.json"), "{}");
    await writeFile(join(folder, "base/model.safetensors"), "weights");
    await body(folder);
  });
}

function workIn(folder: string, changes: Record<string, unknown> = {}, sha256 = "00"): Work {
  const recipe = recipeFromObject({
    method: "iteris",
    base_model: "base",
    adapters: [
      { path: "a", calibration: "a.jsonl" },
      { path: "b", calibration: "b.jsonl" },
    ],
    output: { path: "merged" },
    ...changes,
  }, folder);
  const inputs = recipe.adapters.map(({ name, path }) => ({
    name,
    path,
    files: [{ path: `${path}/adapter_model.safetensors`, sha256 }],
  }));
  return { recipe, plan: { rank: 8 } as Plan, inputs, device: new CpuDevice().info, deciding: {} };
}

Deno.test("identityOf() differs in the name of what decides about the result, and in nothing else", async () => {
  await withBaseModel(async (folder) => {
    const identity = await identityOf(workIn(folder));
    const differences = async (work: Work) => {
      const other = await identityOf(work);
      return Object.keys({ ...identity, ...other }).filter((name) => identity[name] !== other[name]);
    };
    assertEquals(await differences(workIn(folder)), []);
    assertEquals(await differences(workIn(folder, { parameters: { samples: 7 } })), ["parameters.samples"]);
    assertEquals(await differences(workIn(folder, { seed: 1, include: ["*.q_proj"] })), ["seed", "include"]);
    const weighted = [{ path: "a", calibration: "a.jsonl", weight: 2 }, {
      path: "b",
      calibration: "b.jsonl",
    }];
    assertEquals(await differences(workIn(folder, { adapters: weighted })), ["adapters.0.weight"]);
    const files = [0, 1].map((index) => `adapters.${index}, adapter_model.safetensors`);
    assertEquals(await differences(workIn(folder, {}, "11")), files);
    const work = workIn(folder);
    assertEquals(await differences({ ...work, device: { ...work.device, driver: "new" } }), [
      "the device's driver",
    ]);
    assertEquals(await differences({ ...work, deciding: { "tokens at once": 512 } }), ["tokens at once"]);
    // Where the result goes, how it is stored and what is done with it later decide nothing.
    const later = { output: { path: "elsewhere", dtype: "float16" }, device: "cpu", refine: { steps: 3 } };
    assertEquals(await differences(workIn(folder, later)), []);
    await utimes(join(folder, "base/model.safetensors"), new Date(0), new Date(0));
    await writeFile(join(folder, "base/config.json"), "{ }");
    const ofBase = ["base_model, config.json", "base_model, model.safetensors"];
    assertEquals(await differences(workIn(folder)), ofBase);
  });
});
