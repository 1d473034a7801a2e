/** `metric: auto` of iteris+ through the engine, on the software driver. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openDevice } from "@lora-loom/tensor";
import { runMerge } from "../engine/run_merge.ts";
import { MergeError } from "../errors.ts";
import { recipeFromObject } from "../recipe/load.ts";
import type { TriedSetting } from "../report/figures.ts";

const EXAMPLE = fileURLToPath(new URL("../../../../examples/tiny-llama/", import.meta.url));
const SMALL = { samples: 4, agreement_prompts: 10, max_new_tokens: 4, metric_draws: 1 };

async function merged(include: string, changes: Record<string, unknown>) {
  const folder = mkdtempSync(join(tmpdir(), "loom-metric-"));
  try {
    const recipe = recipeFromObject({
      method: "iteris+",
      base_model: "base",
      adapters: ["language", "speech"].map((name) => ({
        path: `adapters/${name}`,
        calibration: `tasks/${name}.train.jsonl`,
      })),
      include: [include],
      parameters: { ...SMALL, ...changes },
      output: { path: join(folder, "merged") },
    }, EXAMPLE);
    await using device = await openDevice({ device: "software" });
    const { output, quality } = await runMerge(recipe, { device });
    const read = (name: string) => readFileSync(join(output, name), "utf8");
    return {
      quality,
      weights: new Uint8Array(readFileSync(join(output, "adapter_model.safetensors"))),
      card: read("README.md"),
      report: read("report.html"),
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Modules where the metric loses prompts, and where it wins some. */
for (
  const [include, sweeps] of [["*.self_attn.v_proj", 2], ["*.self_attn.o_proj", 1]] as const
) {
  Deno.test(`runMerge() with metric: auto gives the bytes of the merge of ${include} that agrees more by more than chance, or else of none, and says so`, async () => {
    const auto = await merged(include, { metric: "auto", metric_sweeps: sweeps });
    const tried: readonly TriedSetting[] = auto.quality.tried!;
    assertEquals(tried.map(({ metric }) => metric), ["none", "output"]);
    const [none, output] = tried.map(({ agreement }) => agreement);
    const { mean, standard_error } = tried[1]!.difference!;
    const better = mean > 2 * standard_error ? "output" : "none";
    assertEquals(tried.flatMap(({ metric, kept }) => kept ? [metric] : []), [better]);
    const alone = await merged(include, { metric: better, metric_sweeps: sweeps });
    assertEquals(alone.weights, auto.weights);
    assertEquals(alone.quality.agreement, auto.quality.agreement);
    assertEquals(alone.quality.agreement!.merged.mean, better === "output" ? output : none);
    assertEquals(alone.quality.tried, undefined);
    const percent = (share: number) => `${(100 * share).toFixed(2)} %`;
    assertStringIncludes(
      auto.card,
      `kept was metric: ${better} (metric: none ${percent(none!)}; metric: output ${percent(output!)})`,
    );
    assertStringIncludes(auto.report, "<h3>Settings tried</h3>");
  });
}

Deno.test("runMerge() refuses metric: auto where no prompts are kept out, and says what to change", async () => {
  const refused = (changes: Record<string, unknown>) =>
    assertRejects(() => merged("*.layers.0.*", { metric: "auto", ...changes }), MergeError);
  const none = await refused({ agreement_prompts: 0 });
  assertEquals(none.code, "too_few_rows");
  assertStringIncludes(none.message, "metric: auto chooses on prompts");
  assertStringIncludes(none.fix, "raise parameters.agreement_prompts, or set parameters.metric to none");
  const both = await refused({ agreement_prompts: 0, tune: "agreement" });
  assertStringIncludes(both.fix, "set parameters.tune and parameters.metric to none");
});
