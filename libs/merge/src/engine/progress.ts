import type { Warning } from "@lora-loom/formats";

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
  /** A stage of a method that looks at the whole model. */
  | {
    readonly type: "stage";
    readonly stage: string;
    readonly done: number;
    readonly total: number;
    readonly elapsed: number;
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

/** Counts modules and estimates the time left from how much of the work (in bytes) is done. */
export class ProgressMeter {
  readonly #start = performance.now();
  #last = this.#start;
  #done = 0;
  #workDone = 0;

  constructor(
    private readonly total: number,
    private readonly work: number,
    private readonly listener: ProgressListener | undefined,
  ) {}

  get elapsed(): number {
    return (performance.now() - this.#start) / 1000;
  }

  /** One module is written; returns the seconds since the one before. */
  module(name: string, work: number): number {
    const now = performance.now();
    const seconds = (now - this.#last) / 1000;
    this.#last = now;
    this.#done++;
    this.#workDone += work;
    const elapsed = this.elapsed;
    const remaining = this.#workDone > 0 ? elapsed * (this.work - this.#workDone) / this.#workDone : 0;
    this.listener?.({
      type: "module",
      name,
      done: this.#done,
      total: this.total,
      seconds,
      elapsed,
      remaining,
    });
    return seconds;
  }

  stage(step: { readonly stage: string; readonly done: number; readonly total: number }): void {
    this.listener?.({ type: "stage", ...step, elapsed: this.elapsed });
  }
}
