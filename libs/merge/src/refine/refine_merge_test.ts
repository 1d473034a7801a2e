/** Refinements of small merges through the engine, on the software driver. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Device, openDevice } from "@lora-loom/tensor";
import { inTemporaryFolder } from "@lora-loom/testing";
import { runMerge } from "../engine/run_merge.ts";
import { MergeError } from "../errors.ts";
import { recipeFromObject } from "../recipe/load.ts";
import type { MergeSummary } from "../report/summary.ts";
import { unfinishedPath } from "../resume/unfinished.ts";

const EXAMPLE = fileURLToPath(new URL("../../../../examples/tiny-llama/", import.meta.url));
const REFINE = {
  steps: 4,
  samples: 6,
  splices: 4,
  sequences: 3,
  warm_up: 1,
  agreement_prompts: 3,
  check_every: 2,
  checkpoint_every: 1,
  max_new_tokens: 4,
  learning_rate: 3e-3,
};

function recipe(
  folder: string,
  refine: Record<string, unknown> | undefined,
  changes: Record<string, unknown> = {},
) {
  return recipeFromObject({
    method: "svd",
    base_model: "base",
    adapters: ["language", "speech"].map((name) => ({
      path: `adapters/${name}`,
      calibration: `tasks/${name}.train.jsonl`,
    })),
    parameters: { rank: 4 },
    include: ["*.layers.0.*"],
    output: { path: join(folder, "merged") },
    ...(refine ? { refine } : {}),
    ...changes,
  }, EXAMPLE);
}

function bytesOf({ output }: Pick<MergeSummary, "output">): Uint8Array {
  return new Uint8Array(readFileSync(join(output, "adapter_model.safetensors")));
}

const device: Device = await openDevice({ device: "software" });

Deno.test("runMerge() with refine lowers the loss, reports it and says that it is training", async () => {
  await inTemporaryFolder(async (folder) => {
    const stages: string[] = [];
    const summary = await runMerge(recipe(folder, { ...REFINE, agreement_prompts: 0, steps: 6 }), {
      device,
      onProgress: (event) => event.type === "stage" && stages.push(event.stage),
    });
    const { refinement } = JSON.parse(readFileSync(join(summary.output, "loom.json"), "utf8"));
    assertEquals([refinement.steps_done, refinement.kept_step, refinement.losses.length], [6, 6, 6]);
    assert(refinement.losses.at(-1) < 0.8 * refinement.losses[0], `losses ${refinement.losses}`);
    assertEquals(summary.refinement?.last_loss, refinement.losses.at(-1));
    assert(
      stages.some((stage) => /^refinement, loss [\d.]+ \(first [\d.]+\)/.test(stage)),
      stages.join("; "),
    );
    assertStringIncludes(
      readFileSync(join(summary.output, "README.md"), "utf8"),
      "6 steps of training without labels",
    );
    assertStringIncludes(readFileSync(join(summary.output, "report.html"), "utf8"), "Loss of each step");
    assertEquals(readdirSync(folder), ["merged"], "nothing is left beside the output");
  });
});

Deno.test("runMerge() reports no agreement of the merge before as that of the refined one", async () => {
  await inTemporaryFolder(async (folder) => {
    const calibrated = {
      method: "iteris",
      parameters: { samples: 4, agreement_prompts: 1, max_new_tokens: 2 },
      include: ["*.layers.0.self_attn.v_proj"],
    };
    const refine = { ...REFINE, agreement_prompts: 0, steps: 1 };
    const { quality, refinement } = await runMerge(recipe(folder, refine, calibrated), { device });
    assertEquals(refinement?.kept_step, 1);
    assertEquals([quality.agreement, quality.output_error], [undefined, undefined]);
  });
});

Deno.test("runMerge() gives the bytes of the merge without refinement when refine has zero steps", async () => {
  await inTemporaryFolder(async (folder) => {
    const plain = bytesOf(await runMerge(recipe(folder, undefined), { device }));
    const summary = await runMerge(recipe(folder, { ...REFINE, steps: 0 }), { device, force: true });
    assertEquals(bytesOf(summary), plain);
    assertEquals(summary.refinement, undefined);
  });
});

Deno.test("runMerge() gives the same refined bytes twice, and after being cancelled and run again", async () => {
  await inTemporaryFolder(async (folder) => {
    const first = await runMerge(recipe(folder, REFINE), { device });
    const bytes = bytesOf(first);
    assert(first.quality.agreement !== undefined && first.refinement!.agreement_before !== null);
    assertEquals(bytesOf(await runMerge(recipe(folder, REFINE), { device, force: true })), bytes);
    rmSync(first.output, { recursive: true });

    const controller = new AbortController();
    const interrupted = await assertRejects(() =>
      runMerge(recipe(folder, REFINE), {
        device,
        signal: controller.signal,
        onProgress: (event) => {
          if (
            event.type === "stage" && event.stage.startsWith("refinement, loss") && event.done === 3
          ) controller.abort();
        },
      }), MergeError);
    assertEquals(interrupted.code, "cancelled");
    assertEquals(readdirSync(folder), ["merged.unfinished"]);
    const done: number[] = [];
    const resumed = await runMerge(recipe(folder, REFINE), {
      device,
      onProgress: (event) =>
        event.type === "stage" && event.stage.startsWith("refinement, loss") && done.push(event.done),
    });
    assertEquals(done, [4], "the first three steps were not taken again");
    assertEquals(bytesOf(resumed), bytes);
    assertEquals(readdirSync(folder), ["merged"]);
  });
});

Deno.test("runMerge() starts anew, and says so, when a checkpoint belongs to another refinement", async () => {
  await inTemporaryFolder(async (folder) => {
    const controller = new AbortController();
    await assertRejects(() =>
      runMerge(recipe(folder, REFINE), {
        device,
        signal: controller.signal,
        onProgress: (event) =>
          event.type === "stage" && event.stage.startsWith("refinement, loss") && controller.abort(),
      }), MergeError);
    assert(existsSync(unfinishedPath(join(folder, "merged"))));
    const other = await runMerge(recipe(folder, { ...REFINE, steps: 2, learning_rate: 1e-3 }), { device });
    assert(other.warnings.some(({ code }) => code === "checkpoint_ignored"));
    assertEquals(other.refinement?.steps_done, 2);
  });
});

Deno.test("runMerge() keeps the merge before refinement when that fails, and names why", async () => {
  await inTemporaryFolder(async (folder) => {
    const plain = bytesOf(await runMerge(recipe(folder, undefined), { device }));
    const short = join(folder, "short.jsonl");
    writeFileSync(short, '{"prompt": "language: one"}\n{"prompt": "language: two"}\n');
    const adapters = ["language", "speech"].map((name) => ({ path: `adapters/${name}`, calibration: short }));
    const cases: [code: string, refine: Record<string, unknown>, changes: Record<string, unknown>][] = [
      ["refinement_diverged", { ...REFINE, learning_rate: 1e4, steps: 8 }, {}],
      ["too_few_rows", REFINE, { adapters }],
      ["too_few_prompts", { ...REFINE, samples: 2, splices: 0 }, { adapters }],
    ];
    for (const [code, refine, changes] of cases) {
      const error = await assertRejects(
        () => runMerge(recipe(folder, refine, changes), { device, force: true }),
        MergeError,
      );
      assertEquals(error.code, code);
      assertStringIncludes(error.fix, `the merge before refinement was written to ${join(folder, "merged")}`);
      assertEquals(bytesOf({ output: join(folder, "merged") }), plain, code);
      const { refinement } = JSON.parse(readFileSync(join(folder, "merged/loom.json"), "utf8"));
      assertEquals(refinement.failure.code, code);
      assertStringIncludes(readFileSync(join(folder, "merged/README.md"), "utf8"), "without any training");
      assert(!existsSync(unfinishedPath(join(folder, "merged"))));
    }
  });
});

Deno.test("recipeFromObject() refuses a refinement that lacks what it needs, or has keys that nobody knows", async () => {
  await inTemporaryFolder((folder) => {
    const failure = (refine: Record<string, unknown>, changes: Record<string, unknown> = {}) => {
      try {
        recipe(folder, refine, changes);
      } catch (error) {
        return (error as MergeError).code + " " + (error as MergeError).message;
      }
      return "nothing";
    };
    assertStringIncludes(
      failure({ steps: 4 }, { base_model: undefined }),
      "missing_key refine runs the base model",
    );
    assertStringIncludes(
      failure({ steps: 4 }, { adapters: [{ path: "adapters/language" }] }),
      "missing_key refine needs calibration prompts",
    );
    assertStringIncludes(failure({ stpes: 4 }), 'did you mean "steps"');
    assertStringIncludes(failure({ steps: -1 }), "parameter_range");
    return Promise.resolve();
  });
});
