import { openAdapter } from "@lora-loom/formats";
import { disposeDeltas, evaluate, type EvaluateOptions, loadDeltas, readTask } from "@lora-loom/model";
import type { Device } from "@lora-loom/tensor";

/** What adapters are scored with. */
export interface Scoring extends Pick<EvaluateOptions, "model" | "tokenizer"> {
  readonly device: Device;
  /** Rows of each file, at most. */
  readonly limit: number;
}

/** The accuracy of the adapter in a folder on each of several task files. */
export async function accuraciesOf(
  adapterPath: string,
  taskFiles: readonly string[],
  { device, model, tokenizer, limit }: Scoring,
): Promise<number[]> {
  using adapter = await openAdapter(adapterPath);
  const deltas = await loadDeltas(device, adapter);
  try {
    const scores: number[] = [];
    for (const file of taskFiles) {
      const { accuracy } = await evaluate({ model, tokenizer, deltas, rows: await readTask(file, limit) });
      scores.push(accuracy);
    }
    return scores;
  } finally {
    disposeDeltas(deltas);
  }
}
