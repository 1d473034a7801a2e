import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { FormatError } from "@lora-loom/formats";
import { CpuDevice } from "@lora-loom/tensor";
import { inTemporaryFolder } from "@lora-loom/testing";
import { diffAdapters } from "../analysis/distance.ts";
import { inspectAdapter } from "../analysis/inspect.ts";
import { MergeError } from "../errors.ts";
import { METHODS } from "../methods/registry.ts";
import { recipeFromObject } from "../recipe/load.ts";
import type { ProgressEvent } from "./progress.ts";
import { runMerge } from "./run_merge.ts";

const EXAMPLES = fileURLToPath(new URL("../../../../examples/tiny-llama/adapters/", import.meta.url));
const [LANGUAGE, SPEECH] = [join(EXAMPLES, "language"), join(EXAMPLES, "speech")];

function recipe(
  folder: string,
  changes: Record<string, unknown> = {},
  paths: readonly string[] = [LANGUAGE, SPEECH],
) {
  return recipeFromObject({
    method: "cat",
    adapters: paths.map((path) => ({ path })),
    include: ["*.layers.0.*"],
    output: { path: "merged" },
    device: "cpu",
    ...changes,
  }, folder);
}

Deno.test("runMerge() gives one adapter back when it is merged alone, by every method that approaches the sum", async () => {
  await inTemporaryFolder(async (folder) => {
    for (const method of ["cat", "linear", "svd", "lego+"]) {
      const output = { path: method };
      const parameters = method === "cat" ? {} : { rank: 8 };
      await runMerge(recipe(folder, { method, parameters, output, include: [] }, [LANGUAGE]));
      const { overall, onlyInA, onlyInB } = await diffAdapters(join(folder, method), LANGUAGE);
      assert(overall < 1e-6, `${method}: ${overall}`);
      assertEquals([onlyInA, onlyInB], [[], []]);
    }
  });
});

Deno.test("runMerge() weighs: an adapter and minus itself cancel, and twice the half is the whole", async () => {
  await inTemporaryFolder(async (folder) => {
    const twice = (weights: number[]) => weights.map((weight) => ({ path: LANGUAGE, weight }));
    const halves = await runMerge(
      recipe(folder, { adapters: twice([0.5, 0.5]), output: { path: "half" }, include: [] }),
    );
    assertEquals(Object.keys(halves.quality.cosine_to_sources), ["language", "language-2"]);
    assert((await diffAdapters(halves.output, LANGUAGE)).overall < 1e-6);
    await runMerge(recipe(folder, { adapters: twice([1, -1]), output: { path: "none" } }));
    assert((await inspectAdapter(join(folder, "none"))).norm < 1e-12);
  });
});

Deno.test("runMerge() reports each module once, with growing time and a shrinking rest", async () => {
  await inTemporaryFolder(async (folder) => {
    const events: ProgressEvent[] = [];
    await runMerge(recipe(folder), { onProgress: (event) => events.push(event) });
    assertEquals(events.map(({ type }) => type), ["start", ...new Array(7).fill("module"), "finish"]);
    const modules = events.filter((event) => event.type === "module");
    assertEquals(
      modules.map(({ done, total }) => [done, total]),
      [1, 2, 3, 4, 5, 6, 7].map((done) => [done, 7]),
    );
    assert(modules.every(({ elapsed }, index) => index === 0 || elapsed >= modules[index - 1]!.elapsed));
    assertEquals(modules.at(-1)!.remaining, 0);
  });
});

Deno.test("runMerge() leaves nothing when it is cancelled between two modules", async () => {
  await inTemporaryFolder(async (folder) => {
    const controller = new AbortController();
    const merge = runMerge(recipe(folder), {
      signal: controller.signal,
      onProgress: (event) => event.type === "module" && event.done === 3 && controller.abort(),
    });
    const error = await assertRejects(() => merge, MergeError);
    assertEquals([error.code, error.blame, readdirSync(folder)], ["cancelled", "work", []]);
  });
});

Deno.test("runMerge() computes on a device that it is given, leaves it open and frees every tensor", async () => {
  await inTemporaryFolder(async (folder) => {
    const device = new CpuDevice();
    for (const method of ["lego", "svd", "linear", "cat"]) {
      await runMerge(recipe(folder, { method, output: { path: method } }), { device });
      assertEquals(device.memory.bytes, 0, method);
    }
    assert(device.memory.peakBytes > 0);
  });
});

Deno.test("runMerge() writes the precision that the recipe asks for", async () => {
  await inTemporaryFolder(async (folder) => {
    const distances: number[] = [];
    for (const dtype of ["float16", "bfloat16"]) {
      await runMerge(recipe(folder, { output: { path: dtype, dtype }, include: [] }, [LANGUAGE]));
      const { modules } = await inspectAdapter(join(folder, dtype));
      assertEquals(modules[0]!.dtype, dtype === "float16" ? "F16" : "BF16");
      distances.push((await diffAdapters(join(folder, dtype), LANGUAGE)).overall);
    }
    // Half a unit in the last place of 11 and of 8 significant bits, once per factor.
    assert(
      distances[0]! < 2 ** -11 && distances[1]! < 2 ** -8 && distances[1]! > distances[0]!,
      String(distances),
    );
  });
});

Deno.test("runMerge() can be run again from what it recorded", async () => {
  await inTemporaryFolder(async (folder) => {
    const first = await runMerge(recipe(folder, { method: "lego", parameters: { rank: 5 }, seed: 7 }));
    const { recipe: recorded } = JSON.parse(readFileSync(join(first.output, "loom.json"), "utf8"));
    const again = recipeFromObject(
      { ...recorded, output: { ...recorded.output, path: "../again" } },
      first.output,
    );
    await runMerge(again);
    const bytes = (name: string) => readFileSync(join(folder, name, "adapter_model.safetensors"));
    assert(bytes("merged").equals(bytes("again")));
  });
});

Deno.test("runMerge() refuses a whole-model method that breaks its word, and leaves nothing", async () => {
  await inTemporaryFolder(async (folder) => {
    const methods = METHODS as Map<string, unknown>;
    const zeros = (device: CpuDevice, rank: number, size: number) => device.zeros([rank, size]);
    try {
      methods.set("half", {
        ...METHODS.get("cat")!,
        kind: "model",
        name: "half",
        async merge(
          job: {
            device: CpuDevice;
            plan: { modules: { name: string; inFeatures: number; outFeatures: number }[] };
            write: (name: string, merged: unknown) => Promise<void>;
          },
        ) {
          const { name, inFeatures, outFeatures } = job.plan.modules[0]!;
          await job.write(name, {
            a: zeros(job.device, 1, inFeatures),
            b: job.device.zeros([outFeatures, 1]),
          });
          return {};
        },
      });
      const error = await assertRejects(() => runMerge(recipe(folder, { method: "half" })), MergeError);
      assertEquals([error.code, error.blame], ["method_contract", "work"]);
      assertStringIncludes(error.message, "left out");
      assert(!existsSync(join(folder, "merged")) && readdirSync(folder).length === 0);
    } finally {
      methods.delete("half");
    }
  });
});

Deno.test("diffAdapters() counts modules of one side only as zero on the other, and names them", async () => {
  await inTemporaryFolder(async (folder) => {
    await runMerge(recipe(folder, {}, [LANGUAGE]));
    const { overall, worst, modules, onlyInB } = await diffAdapters(join(folder, "merged"), LANGUAGE);
    assertEquals(onlyInB.length, 21);
    assertEquals([worst.distance, modules[onlyInB[0]!]], [1, 1]);
    const norms = await inspectAdapter(LANGUAGE);
    const missing = norms.modules.filter(({ name }) => onlyInB.includes(name)).reduce(
      (sum, { norm }) => sum + norm ** 2,
      0,
    );
    assert(Math.abs(overall - Math.sqrt(missing) / norms.norm) < 1e-7);
  });
});

Deno.test("runMerge() names the output and not the folder it was staged in when the output cannot be written", async () => {
  await inTemporaryFolder(async (folder) => {
    // A model folder that says nothing of an architecture.
    await Deno.writeTextFile(join(folder, "config.json"), "{}");
    const changes = { output: { path: "merged", format: "gguf" }, base_model: folder };
    const error = await assertRejects(() => runMerge(recipe(folder, changes)), FormatError);
    assertEquals([error.code, error.where], [
      "architecture_unknown",
      join(folder, "merged", "adapter.gguf"),
    ]);
    assertStringIncludes(error.fix, "base_model: DIR in a recipe");
  });
});
