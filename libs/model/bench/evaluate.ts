/**
 * Accuracy of the example's adapters over all test rows, and what batching and the key/value cache gain.
 *
 *     deno run -A libs/model/bench/evaluate.ts [--device auto] [--limit 400]
 */
import { parseArgs } from "@std/cli/parse-args";
import { openAdapter } from "@lora-loom/formats";
import { disposeDeltas, evaluate, loadDeltas, openModel, openTokenizer, readTask } from "@lora-loom/model";
import { type DeviceChoice, openDevice } from "@lora-loom/tensor";

/** What Transformers finds over 400 rows of each task. */
const EXPECTED = { language: 0.9525, category: 0.7175, speech: 0.885, syllables: 0.795 };
const EXAMPLE = new URL("../../../examples/tiny-llama", import.meta.url).pathname;

const flags = parseArgs(Deno.args, {
  string: ["device", "limit"],
  default: { device: "auto", limit: "400" },
});
await using device = await openDevice({ device: flags.device as DeviceChoice });
using model = await openModel(device, `${EXAMPLE}/base`);
const tokenizer = await openTokenizer(`${EXAMPLE}/base`);
console.log(`${device.info.name} (${device.info.class})`);

async function seconds<T>(work: () => Promise<T>): Promise<[T, number]> {
  const start = performance.now();
  const result = await work();
  return [result, (performance.now() - start) / 1000];
}

for (const [task, expected] of Object.entries(EXPECTED)) {
  const rows = await readTask(`${EXAMPLE}/tasks/${task}.test.jsonl`, Number(flags.limit));
  using adapter = await openAdapter(`${EXAMPLE}/adapters/${task}`);
  const deltas = await loadDeltas(device, adapter);
  const [{ accuracy, n }, time] = await seconds(() => evaluate({ model, tokenizer, deltas, rows }));
  const few = rows.slice(0, 16);
  const [, together] = await seconds(() => evaluate({ model, tokenizer, deltas, rows: few }));
  const [, singly] = await seconds(() => evaluate({ model, tokenizer, deltas, rows: few, batch: 1 }));
  console.log(
    `${task.padEnd(9)} accuracy ${accuracy.toFixed(4)} of ${n} rows (Transformers: ${
      expected.toFixed(4)
    } of 400), ` +
      `${time.toFixed(2)} s; 16 rows: together ${(singly / together).toFixed(1)}× as fast as one by one`,
  );
  disposeDeltas(deltas);
}
