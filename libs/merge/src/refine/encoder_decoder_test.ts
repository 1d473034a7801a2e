/** Gradients in merges of an encoder-decoder, through the engine, on the software driver. */
import { assert, assertEquals } from "@std/assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { splice } from "@lora-loom/iteris";
import { openTokenizer, readTask } from "@lora-loom/model";
import { openDevice } from "@lora-loom/tensor";
import { inTemporaryFolder, seeded } from "@lora-loom/testing";
import { runMerge } from "../engine/run_merge.ts";
import { recipeFromObject } from "../recipe/load.ts";

const EXAMPLES = fileURLToPath(new URL("../../../../examples/", import.meta.url));
/** One block of each half: an encoder's MLP, an attention to itself and one to the prompt. */
const MODULES = ["encoder.block.2.layer.1.*", "decoder.block.0.layer.0.*", "decoder.block.0.layer.1.*"];
const REFINE = {
  steps: 6,
  samples: 6,
  splices: 4,
  sequences: 4,
  warm_up: 1,
  agreement_prompts: 0,
  max_new_tokens: 4,
  learning_rate: 3e-3,
};

function merged(changes: Record<string, unknown>) {
  return inTemporaryFolder(async (folder) => {
    const recipe = recipeFromObject({
      base_model: "tiny-t5/base",
      adapters: ["language", "speech"].map((name) => ({
        path: `tiny-t5/adapters/${name}`,
        calibration: `tiny-llama/tasks/${name}.train.jsonl`,
      })),
      include: MODULES,
      output: { path: join(folder, "merged") },
      ...changes,
    }, EXAMPLES);
    await using device = await openDevice({ device: "software" });
    const { output } = await runMerge(recipe, { device });
    return {
      record: JSON.parse(readFileSync(join(output, "loom.json"), "utf8")),
      weights: new Uint8Array(readFileSync(join(output, "adapter_model.safetensors"))),
    };
  });
}

Deno.test("runMerge() refines a merge of T5 adapters, and lowers the loss", async () => {
  const { record } = await merged({ method: "svd", parameters: { rank: 4 }, refine: REFINE });
  const { losses, state_losses, steps_done } = record.refinement;
  assertEquals([steps_done, losses.length], [6, 6]);
  assert(losses.at(-1) < 0.8 * losses[0], `losses ${losses}`);
  assert(state_losses.at(-1) < state_losses[0], `of hidden states ${state_losses}`);
});

Deno.test("runMerge() weighs a merge of T5 adapters by output metrics, which change it", async () => {
  const parameters = { samples: 6, agreement_prompts: 0, max_new_tokens: 4 };
  // One that is solved on the prompts, and one on the answers.
  const include = ["decoder.block.0.layer.1.EncDecAttention.k", "decoder.block.0.layer.1.EncDecAttention.q"];
  const plain = await merged({ method: "iteris+", parameters, include });
  const weighed = await merged({
    method: "iteris+",
    parameters: { ...parameters, metric: "output", metric_draws: 1 },
    include,
  });
  assertEquals(weighed.weights.length, plain.weights.length);
  assert(weighed.weights.some((byte, at) => byte !== plain.weights[at]));
});

Deno.test("splice() makes prompts that end as an encoder's prompts do", async () => {
  const tokenizer = await openTokenizer(`${EXAMPLES}tiny-t5/base`);
  const rows = await readTask(`${EXAMPLES}tiny-llama/tasks/category.train.jsonl`, 20);
  const prompts = rows.map(({ prompt }) => tokenizer.encode(prompt));
  const spliced = splice(prompts, { count: 30, random: seeded(1) });
  assertEquals(spliced.length, 30);
  for (const tokens of [...prompts, ...spliced]) {
    assertEquals(tokens.indexOf(tokenizer.eosId!), tokens.length - 1, "one end token, and that last");
  }
});
