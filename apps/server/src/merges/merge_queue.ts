import type { Recipe } from "@lora-loom/merge";
import {
  describeFailure,
  describeMergeFailure,
  type MergeFailure,
  ServerError,
  storeFull,
} from "../errors.ts";
import type { Limits } from "../limits.ts";
import type { Merger } from "../work/merger.ts";
import type { MemoryPeaks } from "../work/messages.ts";
import { EventLog } from "./event_log.ts";
import type { MergeProgress, MergeRequest, MergeResource } from "./merge.ts";
import type { MergeStore, StoredMerge } from "./merge_store.ts";
import type { Results } from "./results.ts";

/** Failures that another attempt on a new device may not have. */
const RETRIED: ReadonlySet<string> = new Set(["device_lost", "worker_crashed"]);
/** Attempts at one merge, where each fails so. */
const ATTEMPTS = 2;

/** What the queue works with. */
export interface MergeQueueParts {
  readonly store: MergeStore;
  readonly results: Results;
  /** One for each merge that may run at a time. */
  readonly mergers: readonly Merger[];
  readonly limits: Limits;
  recipe(request: MergeRequest, id: string): Promise<Recipe>;
  /** Bytes that everything kept takes now. */
  readonly used: () => number;
  readonly hide: (text: string) => string;
}

interface Running {
  readonly controller: AbortController;
  readonly merger: Merger;
  progress: MergeProgress | null;
}

const INTERRUPTED: MergeFailure = {
  code: "interrupted",
  message: "the server crashed every time while this merge ran",
  fix: "look at the server's log (out of memory?), then start the merge again",
  where: "",
  blame: "work",
};

/** The merges that wait and run: in order, a bounded number at a time, each to one end. */
export class MergeQueue {
  readonly #parts: MergeQueueParts;
  readonly #running = new Map<string, Running>();
  readonly #logs = new Map<string, EventLog>();
  readonly #idle: Merger[];
  readonly #work = new Set<Promise<void>>();
  #isStopping = false;

  constructor(parts: MergeQueueParts) {
    this.#parts = parts;
    this.#idle = [...parts.mergers];
  }

  /**
   * Takes up what the last server left: a merge whose result is complete is done, one that was running waits again, and
   * one that was running at every crash is given up.
   */
  async recover(): Promise<void> {
    const { store, results, limits } = this.#parts;
    await results.recover(new Set(store.list(Number.MAX_SAFE_INTEGER).map(({ id }) => id)));
    for (const { id, interruptions } of store.inState("running")) {
      if (await results.isComplete(id)) store.finish(id, await results.read(id));
      else if (interruptions >= limits.interruptions) store.fail(id, INTERRUPTED);
      else store.requeue(id, interruptions + 1);
    }
    // A result without its state: the merge was cancelled at the very end, or waits again.
    for (const { id } of store.inState("queued")) await results.clear(id);
    for (const state of ["failed", "cancelled"] as const) {
      for (const { id } of store.inState(state)) await results.remove(id);
    }
    this.#pump();
  }

  /** @throws {ServerError} `queue_full`, `too_many_merges`, `store_full` */
  add(name: string, request: MergeRequest): MergeResource {
    const { store, limits, used } = this.#parts;
    if (used() >= limits.storeBytes) throw storeFull(limits.storeBytes);
    if (store.count("queued") >= limits.queue) {
      const message = `${limits.queue} merges wait already`;
      throw new ServerError(503, "queue_full", message, "wait until some are done, and send it again");
    }
    if (store.count() >= limits.merges) {
      const message = `the server keeps ${limits.merges} merges already`;
      throw new ServerError(507, "too_many_merges", message, "delete old ones with DELETE /api/merges/{id}");
    }
    const id = crypto.randomUUID().replaceAll("-", "").slice(0, 24);
    store.add(id, name, request);
    this.#pump();
    return this.get(id);
  }

  /** @throws {ServerError} `not_found` */
  get(id: string): MergeResource {
    return this.#resource(this.#parts.store.get(id));
  }

  list(limit: number, before?: string): MergeResource[] {
    const { store } = this.#parts;
    const from = before === undefined ? undefined : store.get(before).sequence;
    return store.list(limit, from).map((merge) => this.#resource(merge));
  }

  get counts(): { readonly running: number; readonly queued: number } {
    return { running: this.#running.size, queued: this.#parts.store.count("queued") };
  }

  /**
   * Cancels a merge that waits or runs, and removes one that has ended, with its result.
   *
   * @returns the cancelled merge; undefined where it was removed
   * @throws {ServerError} `not_found`
   */
  async cancelOrRemove(id: string): Promise<MergeResource | undefined> {
    const { store, results } = this.#parts;
    const { state } = store.get(id);
    if (state === "queued") store.cancel(id, "queued");
    else if (state === "running") {
      // Its state changes when the work has stopped.
      this.#running.get(id)?.controller.abort();
    } else {
      store.remove(id);
      this.#logs.delete(id);
      await results.remove(id);
      return undefined;
    }
    if (state === "queued") this.#tell(id);
    return this.get(id);
  }

  /** The events of a merge from now on. */
  log(id: string): EventLog {
    this.#parts.store.get(id);
    let log = this.#logs.get(id);
    if (!log) this.#logs.set(id, log = new EventLog());
    return log;
  }

  /** Lets go of a log that nobody reads and nothing will be added to. */
  release(id: string): void {
    const state = this.#parts.store.find(id)?.state;
    if (state !== "queued" && state !== "running" && !this.#logs.get(id)?.isWatched) this.#logs.delete(id);
  }

  /** Stops what runs and puts it back into the queue for the next server. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    for (const { controller } of this.#running.values()) controller.abort();
    await Promise.all(this.#work);
    for (const merger of this.#parts.mergers) merger.close();
  }

  #pump(): void {
    while (!this.#isStopping && this.#idle.length > 0) {
      const merge = this.#parts.store.takeNext();
      if (!merge) return;
      const merger = this.#idle.shift()!;
      const work = this.#run(merge, merger).catch((error) => console.error(`merge ${merge.id}:`, error))
        .finally(() => {
          this.#idle.push(merger);
          this.#work.delete(work);
          this.#pump();
        });
      this.#work.add(work);
    }
  }

  async #run(merge: StoredMerge, merger: Merger): Promise<void> {
    const { store, results, hide } = this.#parts;
    const { id, interruptions } = merge;
    const running: Running = { controller: new AbortController(), merger, progress: null };
    this.#running.set(id, running);
    this.#tell(id);
    try {
      const peaks = await this.#attempt(merge, running);
      store.finish(id, await results.read(id, peaks));
    } catch (error) {
      if (!running.controller.signal.aborted) store.fail(id, describeMergeFailure(error, hide));
      else if (this.#isStopping) store.requeue(id, interruptions);
      else store.cancel(id, "running");
      await (store.get(id).state === "queued" ? results.clear(id) : results.remove(id));
    } finally {
      this.#running.delete(id);
    }
    this.#tell(id);
    this.release(id);
  }

  async #attempt({ id, request }: StoredMerge, running: Running): Promise<MemoryPeaks> {
    const { results, recipe } = this.#parts;
    const { signal } = running.controller;
    for (let attempt = 1;; attempt++) {
      try {
        await results.clear(id);
        const onProgress = (event: MergeProgress) => {
          const progress = this.#shown(event);
          // Something said in between is not how far the merge is.
          if (progress.type !== "note") running.progress = progress;
          this.#logs.get(id)?.add({ type: "progress", progress });
        };
        return await running.merger.run({ id, recipe: await recipe(request, id), signal, onProgress });
      } catch (error) {
        const { code } = describeFailure(error).error;
        if (attempt >= ATTEMPTS || signal.aborted || !RETRIED.has(code)) throw error;
        console.error(`merge ${id}: ${code}; once more on a new device`);
        running.progress = null;
        running.merger.restart();
      }
    }
  }

  /** Progress without the server's paths. */
  #shown(event: MergeProgress): MergeProgress {
    const { hide } = this.#parts;
    if (event.type === "note") return { ...event, message: hide(event.message), where: hide(event.where) };
    if (event.type !== "start") return event;
    return {
      ...event,
      warnings: event.warnings.map(({ code, message, where }) => ({
        code,
        message: hide(message),
        where: hide(where),
      })),
    };
  }

  #tell(id: string): void {
    this.#logs.get(id)?.add({ type: "merge", merge: this.get(id) });
    // Those that wait move up.
    for (const [other, log] of this.#logs) {
      if (other === id || !log.isWatched) continue;
      const merge = this.#parts.store.find(other);
      if (merge?.state === "queued") log.add({ type: "merge", merge: this.#resource(merge) });
    }
  }

  #resource(merge: StoredMerge): MergeResource {
    const { id, name, state, request, created, started, finished, result, error } = merge;
    const waiting = state === "queued"
      ? this.#parts.store.countBefore(merge.sequence) + this.#running.size
      : null;
    const progress = this.#running.get(id)?.progress ?? null;
    return { id, name, state, request, created, started, finished, waiting, progress, result, error };
  }
}
