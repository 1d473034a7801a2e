/** Greedy accuracy of the example's adapters, each on its own task, on the software driver. */
import { assert, assertEquals } from "@std/assert";
import { openDevice } from "@lora-loom/tensor";
import { disposeDeltas } from "./deltas.ts";
import { evaluate } from "./evaluate.ts";
import { readTask } from "./jsonl.ts";
import { openModel } from "./open_model.ts";
import { type ExampleModel, exampleModel } from "./test_support/example_model.ts";
import { type Task, testRows, TINY_LLAMA } from "./test_support/tiny_llama.ts";
import { openTokenizer } from "./tokenizer.ts";

async function accuracyOf({ base, adapterDeltas }: ExampleModel, task: Task, limit?: number) {
  await using device = await openDevice({ device: "software" });
  using model = await openModel(device, base);
  const deltas = await adapterDeltas(device, task);
  const rows = await readTask(testRows(task), limit);
  const result = await evaluate({ model, tokenizer: await openTokenizer(base), deltas, rows });
  disposeDeltas(deltas);
  return result;
}

Deno.test("evaluate() finds the accuracy that Transformers finds over all rows of a task", async () => {
  const { accuracy, n } = await accuracyOf(TINY_LLAMA, "syllables");
  assertEquals(n, 400);
  assert(Math.abs(accuracy - 0.795) <= 0.005, `accuracy ${accuracy}`);
});

Deno.test("evaluate() finds the accuracy that Transformers finds with an encoder-decoder", async () => {
  const { accuracy, n } = await accuracyOf(exampleModel("tiny-t5"), "speech");
  assertEquals(n, 400);
  assert(Math.abs(accuracy - 0.5625) <= 0.005, `accuracy ${accuracy}`);
});

// Over the first 100 rows one completion in a hundred may turn on rounding.
const FIRST_HUNDRED = { language: 0.95, category: 0.77, speech: 0.9 };

for (const task of ["language", "category", "speech"] as const) {
  Deno.test(`evaluate() keeps its accuracy over the first rows of ${task}`, async () => {
    const { accuracy } = await accuracyOf(TINY_LLAMA, task, 100);
    assert(Math.abs(accuracy - FIRST_HUNDRED[task]) <= 0.0101, `accuracy ${accuracy}`);
  });
}
