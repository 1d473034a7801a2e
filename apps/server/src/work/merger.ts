import type { DeviceChoice, ErrorReport, ProgressEvent, Recipe } from "@lora-loom/merge";
import { crashed, failedWork } from "./failed_work.ts";
import type { DeviceFacts, MemoryPeaks, MergeNews, MergeOrder } from "./messages.ts";

/**
 * Milliseconds that a cancelled merge may take to stop by itself. One that computes on the CPU hears nothing meanwhile;
 * its thread is ended then.
 */
const GRACE = 3000;

/** One merge for a {@linkcode Merger}. */
export interface MergeTask {
  readonly id: string;
  readonly recipe: Recipe;
  readonly signal: AbortSignal;
  onProgress(event: ProgressEvent): void;
}

/** Merges recipes, one at a time. */
export interface Merger {
  /** @throws {MergeError} with the code of what went wrong; `device_lost` and `worker_crashed` may pass by themselves */
  run(task: MergeTask): Promise<MemoryPeaks>;
  /** Gives up the device and what runs on it; the next merge starts anew. */
  restart(): void;
  close(): void;
}

/** What is known about the device. */
export interface DeviceState {
  readonly device: DeviceFacts | null;
  readonly error: ErrorReport | null;
}

/** Merges in a thread of its own, so that the server answers meanwhile. */
export class WorkerMerger implements Merger {
  #worker: Worker | undefined;
  #state: DeviceState = { device: null, error: null };
  #current:
    | { readonly task: MergeTask; resolve(peaks: MemoryPeaks): void; reject(error: unknown): void }
    | undefined;

  /**
   * @param device what `device: auto` in a recipe means
   * @param thread the program of the thread. For tests.
   */
  constructor(
    private readonly device: DeviceChoice,
    private readonly thread: URL = new URL("./merge_worker.ts", import.meta.url),
  ) {
    this.#send({ type: "open" });
  }

  get state(): DeviceState {
    return this.#state;
  }

  async run(task: MergeTask): Promise<MemoryPeaks> {
    let grace: ReturnType<typeof setTimeout> | undefined;
    const cancel = () => {
      this.#send({ type: "cancel", id: task.id });
      grace = setTimeout(() => this.#end(`${task.id} did not stop by itself`), GRACE);
    };
    task.signal.addEventListener("abort", cancel);
    try {
      return await new Promise<MemoryPeaks>((resolve, reject) => {
        this.#current = { task, resolve, reject };
        this.#send({ type: "run", id: task.id, recipe: task.recipe });
        if (task.signal.aborted) cancel();
      });
    } finally {
      clearTimeout(grace);
      this.#current = undefined;
      task.signal.removeEventListener("abort", cancel);
    }
  }

  restart(): void {
    this.#end("it was restarted");
  }

  close(): void {
    this.#end("the server stops");
  }

  #send(order: MergeOrder): void {
    this.#worker ??= this.#start();
    this.#worker.postMessage(order);
  }

  #start(): Worker {
    const worker = new Worker(this.thread, { type: "module", name: this.device });
    worker.addEventListener("message", ({ data }: MessageEvent<MergeNews>) => this.#hear(data));
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      if (this.#worker === worker) this.#end(event.message);
    });
    return worker;
  }

  #hear(news: MergeNews): void {
    if (news.type === "device") this.#state = { device: news.device, error: null };
    else if (news.type === "no_device") this.#state = { device: null, error: news.error };
    else if (news.id !== this.#current?.task.id) return;
    else if (news.type === "progress") this.#current.task.onProgress(news.event);
    else if (news.type === "done") this.#current.resolve(news.peaks);
    else this.#current.reject(failedWork(news.error));
  }

  #end(reason: string): void {
    this.#worker?.terminate();
    this.#worker = undefined;
    if (!this.#current) return;
    console.error(`merging: the thread ended: ${reason}`);
    this.#current.reject(crashed());
  }
}
