/** Interrupted merges through the engine, on the software driver. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Device, openDevice } from "@lora-loom/tensor";
import { inTemporaryFolder } from "@lora-loom/testing";
import { type MergeOptions, runMerge } from "../engine/run_merge.ts";
import type { ProgressEvent } from "../engine/progress.ts";
import { MergeError } from "../errors.ts";
import { recipeFromObject } from "../recipe/load.ts";

const EXAMPLE = fileURLToPath(new URL("../../../../examples/tiny-llama/", import.meta.url));
const device: Device = await openDevice({ device: "software" });

/** Two modules of stages far apart, and little text. */
const SMALL = { samples: 5, agreement_prompts: 1, max_new_tokens: 2 };

function recipe(folder: string, changes: Record<string, unknown> = {}) {
  return recipeFromObject({
    method: "iteris",
    base_model: "base",
    adapters: ["language", "speech"].map((name) => ({
      path: `adapters/${name}`,
      calibration: `tasks/${name}.train.jsonl`,
    })),
    parameters: SMALL,
    include: ["*.layers.0.self_attn.v_proj", "*.layers.1.self_attn.o_proj"],
    output: { path: join(folder, "merged") },
    ...changes,
  }, EXAMPLE);
}

interface Outcome {
  readonly weights: Uint8Array;
  readonly record: Record<string, unknown>;
  readonly notes: readonly (ProgressEvent & { readonly type: "note" })[];
  /** Events of progress by stages. */
  readonly stages: number;
}

/** Runs a merge to its end; the record is without what may differ between two runs. */
async function outcomeOf(work: ReturnType<typeof recipe>, options: MergeOptions = {}): Promise<Outcome> {
  const notes: (ProgressEvent & { readonly type: "note" })[] = [];
  let stages = 0;
  await runMerge(work, {
    device,
    force: true,
    onProgress: (event) => {
      if (event.type === "note") notes.push(event);
      if (event.type === "stage") stages++;
    },
    ...options,
  });
  const folder = work.output.path;
  const { created: _created, seconds: _seconds, resumed, modules, ...record } = JSON.parse(
    readFileSync(join(folder, "loom.json"), "utf8"),
  );
  for (const module of modules) delete module.seconds;
  const weights = new Uint8Array(readFileSync(join(folder, "adapter_model.safetensors")));
  rmSync(folder, { recursive: true });
  assertEquals(resumed !== undefined, notes.some(({ code }) => code === "resumed"));
  return { weights, record: { ...record, modules }, notes, stages };
}

/** Runs a merge that is cancelled after so many events of progress. */
async function interrupted(work: ReturnType<typeof recipe>, events: number): Promise<MergeError> {
  const controller = new AbortController();
  let seen = 0;
  const merge = runMerge(work, {
    device,
    force: true,
    signal: controller.signal,
    onProgress: (event) => event.type === "stage" && ++seen === events && controller.abort(),
  });
  const error = await assertRejects(() => merge, MergeError);
  assertEquals(error.code, "cancelled");
  return error;
}

/** By name: what the recipe says, and after which part of the work it is cancelled each time. */
const CASES: readonly [name: string, changes: Record<string, unknown>, interruptions: readonly number[]][] = [
  ["iteris by jacobi with alpha: auto", {
    parameters: { ...SMALL, schedule: "jacobi", iterations: 2, alpha: "auto" },
  }, [0.3, 0.8]],
  ["iteris+ with metric: output and splices", {
    method: "iteris+",
    parameters: { ...SMALL, samples: 2, metric: "output", metric_draws: 1, splices: 1 },
  }, [0.7]],
  ["iteris+ with metric: auto", {
    method: "iteris+",
    parameters: { ...SMALL, samples: 2, metric: "auto", metric_draws: 1, metric_sweeps: 1 },
  }, [0.3, 0.8]],
  ["iteris+ with tune: agreement", {
    method: "iteris+",
    parameters: { ...SMALL, samples: 2, tune: "agreement" },
  }, [0.6]],
];

for (const [name, changes, interruptions] of CASES) {
  Deno.test(`runMerge() gives the same bytes and the same record by ${name} when it is cancelled again and again`, async () => {
    await inTemporaryFolder(async (folder) => {
      const work = recipe(folder, changes);
      const whole = await outcomeOf(work);
      assertEquals(readdirSync(folder), [], "nothing is left beside the output");
      for (const part of interruptions) await interrupted(work, Math.ceil(part * whole.stages));
      const resumed = await outcomeOf(work);
      assertEquals(resumed.notes.map(({ code }) => code), ["resumed"]);
      assertEquals(resumed.weights, whole.weights);
      assertEquals(resumed.record, whole.record);
      assertEquals(readdirSync(folder), []);
    });
  });
}

Deno.test("runMerge() says what it keeps when it is cancelled, and how to go on or start anew", async () => {
  await inTemporaryFolder(async (folder) => {
    const error = await interrupted(recipe(folder), 12);
    assertStringIncludes(error.message, "the last one pass 1, model.layers.1.self_attn.o");
    assertStringIncludes(error.fix, "it goes on from there");
    assertEquals(error.where, join(folder, "merged.unfinished"));
    const fresh = await outcomeOf(recipe(folder), { fresh: true });
    assertEquals(fresh.notes, []);
    assertEquals(readdirSync(folder), []);
  });
});

Deno.test("runMerge() starts anew, and names what differs, when the recipe is another", async () => {
  await inTemporaryFolder(async (folder) => {
    await interrupted(recipe(folder), 5);
    const { notes } = await outcomeOf(recipe(folder, { parameters: { ...SMALL, alpha: 0.01 } }));
    assertEquals(notes.map(({ code }) => code), ["journal_ignored"]);
    assertStringIncludes(notes[0]!.message, "not used: parameters.alpha differ; this one starts from");
    assertEquals(readdirSync(folder), []);
  });
});

Deno.test("runMerge() says so once, and merges on, when it cannot keep its steps", async () => {
  await inTemporaryFolder(async (folder) => {
    const whole = await outcomeOf(recipe(folder));
    // Nothing can be made where a link leads nowhere.
    symlinkSync(join(folder, "absent/folder"), join(folder, "merged.unfinished"));
    const without = await outcomeOf(recipe(folder));
    assertEquals(without.notes.map(({ code }) => code), ["journal_not_kept"]);
    assertEquals(without.weights, whole.weights);
  });
});

Deno.test("runMerge() leaves nothing when the request is wrong, and nothing when it is told not to be resumable", async () => {
  await inTemporaryFolder(async (folder) => {
    const short = join(folder, "short.jsonl");
    writeFileSync(short, '{"prompt": "language: one"}\n');
    const adapters = [{ path: "adapters/language", calibration: short }];
    const error = await assertRejects(() => runMerge(recipe(folder, { adapters }), { device }), MergeError);
    assertEquals([error.code, readdirSync(folder)], ["too_few_rows", ["short.jsonl"]]);
    const controller = new AbortController();
    await assertRejects(() =>
      runMerge(recipe(folder), {
        device,
        resumable: false,
        signal: controller.signal,
        onProgress: (event) => event.type === "stage" && event.done === 5 && controller.abort(),
      })
    );
    assertEquals(readdirSync(folder), ["short.jsonl"]);
  });
});
