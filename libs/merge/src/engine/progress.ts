import type { Warning } from "@lora-loom/formats";
import type { Residency } from "@lora-loom/model";
import type { MemoryNeeds } from "../memory/needs.ts";

/** What a running merge tells its caller. */
export type ProgressEvent =
  /** Once, when the plan stands and the device is open. */
  | {
    readonly type: "start";
    readonly modules: number;
    readonly rank: number;
    readonly device: string;
    readonly warnings: readonly Warning[];
  }
  /** Once, where the base model is run: what the merge is to need, and where the weights will be. */
  | { readonly type: "needs"; readonly needs: MemoryNeeds; readonly weights: Residency }
  /**
   * A stage of a method that looks at the whole model: `done` of `total` such stages are over. Times in seconds;
   * `remaining` is an estimate for these stages alone, null until one of them has been timed.
   */
  | {
    readonly type: "stage";
    readonly stage: string;
    readonly done: number;
    readonly total: number;
    readonly elapsed: number;
    readonly remaining: number | null;
  }
  /** After each module; times in seconds, `remaining` an estimate. */
  | {
    readonly type: "module";
    readonly name: string;
    readonly done: number;
    readonly total: number;
    readonly seconds: number;
    readonly elapsed: number;
    readonly remaining: number;
  }
  /** After the last module: reports are written and the folder is put in its place. */
  | { readonly type: "finish"; readonly elapsed: number };

/** Receives the events of one merge, in order. */
export type ProgressListener = (event: ProgressEvent) => void;

/** Stages of one kind that follow each other, from the first that was told on. */
interface StageGroup {
  readonly total: number;
  readonly first: number;
  readonly start: number;
  done: number;
}

/** Counts modules and estimates the time left from how much of the work (in bytes) is done. */
export class ProgressMeter {
  readonly #start: number;
  /** When the modules' own work began: stages come before it. */
  #modulesStart: number;
  #last: number;
  #done = 0;
  #workDone = 0;
  #stages: StageGroup | undefined;

  /**
   * @param total modules
   * @param work bytes of all modules
   * @param clock milliseconds that never go back. For tests.
   */
  constructor(
    private readonly total: number,
    private readonly work: number,
    private readonly listener: ProgressListener | undefined,
    private readonly clock: () => number = () => performance.now(),
  ) {
    this.#start = this.#modulesStart = this.#last = clock();
  }

  get elapsed(): number {
    return (this.clock() - this.#start) / 1000;
  }

  /** One module is written; returns the seconds since the one before. */
  module(name: string, work: number): number {
    const now = this.clock();
    const seconds = (now - this.#last) / 1000;
    this.#last = now;
    this.#done++;
    this.#workDone += work;
    const spent = (now - this.#modulesStart) / 1000;
    const remaining = this.#workDone > 0 ? spent * (this.work - this.#workDone) / this.#workDone : 0;
    this.listener?.({
      type: "module",
      name,
      done: this.#done,
      total: this.total,
      seconds,
      elapsed: this.elapsed,
      remaining,
    });
    return seconds;
  }

  needs(needs: MemoryNeeds, weights: Residency): void {
    this.listener?.({ type: "needs", needs, weights });
  }

  stage(step: { readonly stage: string; readonly done: number; readonly total: number }): void {
    const now = this.clock();
    this.#modulesStart = this.#last = now;
    this.listener?.({ type: "stage", ...step, elapsed: this.elapsed, remaining: this.#remaining(step, now) });
  }

  #remaining({ done, total }: { readonly done: number; readonly total: number }, now: number): number | null {
    const group = this.#stages;
    if (!group || group.total !== total || done <= group.done) {
      this.#stages = { total, first: done, start: now, done };
      return null;
    }
    group.done = done;
    return (now - group.start) / 1000 / (done - group.first) * (total - done);
  }
}
