import { MergeError, runMerge } from "@lora-loom/merge";
import { CpuDevice } from "@lora-loom/tensor";
import type { MemoryPeaks } from "../work/messages.ts";
import type { Merger, MergeTask } from "../work/merger.ts";

/** Merges on the CPU in the test's own thread. */
export class CpuMerger implements Merger {
  async run({ recipe, signal, onProgress }: MergeTask): Promise<MemoryPeaks> {
    await using device = new CpuDevice();
    return await runMerge(recipe, { device, signal, onProgress });
  }
  restart(): void {}
  close(): void {}
}

/** Does what a test says: each merge waits until the test lets it end. */
export class ManualMerger implements Merger {
  readonly started: MergeTask[] = [];
  restarts = 0;
  #waiting: { resolve(peaks: MemoryPeaks): void; reject(error: unknown): void } | undefined;
  #onStart: (() => void) | undefined;

  run(task: MergeTask): Promise<MemoryPeaks> {
    this.started.push(task);
    return new Promise<MemoryPeaks>((resolve, reject) => {
      this.#waiting = { resolve, reject };
      const cancelled = new MergeError("cancelled", "cancelled", "", "", "work");
      task.signal.addEventListener("abort", () => reject(cancelled));
      // A merge that was cancelled before it began hears no event.
      if (task.signal.aborted) reject(cancelled);
      this.#onStart?.();
    });
  }

  /** The task that runs now, once there is one. */
  async current(count = this.started.length + 1): Promise<MergeTask> {
    while (this.started.length < count) await new Promise<void>((resolve) => this.#onStart = resolve);
    return this.started[count - 1]!;
  }

  /** Writes what a merge would have written, and ends it. */
  async complete(): Promise<void> {
    await writeResult(this.started.at(-1)!.recipe.output.path);
    this.#waiting!.resolve({ peak_rss_bytes: 1000, peak_gpu_bytes: 0 });
  }

  fail(code: string): void {
    this.#waiting!.reject(new MergeError(code, `it failed: ${code}`, "try again", "", "work"));
  }

  restart(): void {
    this.restarts++;
  }

  close(): void {}
}

/** The least that a complete result holds. */
export async function writeResult(folder: string): Promise<void> {
  await Deno.mkdir(folder, { recursive: true });
  const record = {
    rank: 4,
    modules: [{}, {}],
    device: { name: "a device", backend: "cpu", class: "cpu" },
    seconds: { total: 1, read: 0, compute: 1, write: 0 },
    quality: { cosine_to_sources: {}, cosine_to_sum: 1, loss: 0, best_loss: null, norm_ratio: 1 },
    warnings: [],
  };
  await Deno.writeTextFile(`${folder}/loom.json`, JSON.stringify(record));
  await Deno.writeTextFile(`${folder}/adapter_model.safetensors`, "weights");
}
