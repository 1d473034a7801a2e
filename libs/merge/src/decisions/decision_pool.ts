import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { type Decision, type FactorEntries, LegoError, type TruncationDecision } from "@lora-loom/lego";
import { MergeError } from "../errors.ts";
import type { ErrorFields, FromWorker, Question, Task, ToWorker } from "./messages.ts";

/** Most threads: each takes some 80 MB, and a merge is to stay within 1 GiB beyond its largest module. */
const MOST_WORKERS = 4;

/** How many threads this machine can keep busy: the one that owns the device mostly waits for it. */
export function sensibleWorkers(): number {
  return Math.min(MOST_WORKERS, availableParallelism());
}

/**
 * Threads that take the float64 decisions of several modules at once, so that they neither wait for each other nor hold
 * up the device. Threads start when they are first needed. A decision is the same whichever thread takes it.
 */
export class DecisionPool implements AsyncDisposable {
  readonly #idle: Worker[] = [];
  readonly #all: Worker[] = [];
  readonly #waiting: ((worker: Worker) => void)[] = [];

  constructor(private readonly size: number) {}

  /** `decide` of `@lora-loom/lego`. */
  clusters(
    stack: Extract<Task, { kind: "clusters" }>["stack"],
    options: Extract<Task, { kind: "clusters" }>["options"],
    entries: FactorEntries,
  ): Promise<Decision> {
    return this.#run({ kind: "clusters", stack, options }, entries) as Promise<Decision>;
  }

  /** `decideTruncation` of `@lora-loom/lego`. */
  truncation(
    stack: Extract<Task, { kind: "truncation" }>["stack"],
    options: Extract<Task, { kind: "truncation" }>["options"],
  ): Promise<TruncationDecision> {
    return this.#run({ kind: "truncation", stack, options }) as Promise<TruncationDecision>;
  }

  /** Ends all threads. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#all.map((worker) => worker.terminate()));
  }

  async #run(task: Task, entries?: FactorEntries): Promise<unknown> {
    const worker = await this.#take();
    try {
      return await converse(worker, task, entries);
    } finally {
      this.#giveBack(worker);
    }
  }

  #take(): Promise<Worker> | Worker {
    const idle = this.#idle.pop();
    if (idle) return idle;
    if (this.#all.length < this.size) {
      const worker = new Worker(new URL("./worker.ts", import.meta.url));
      this.#all.push(worker);
      return worker;
    }
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #giveBack(worker: Worker): void {
    const next = this.#waiting.shift();
    if (next) next(worker);
    else this.#idle.push(worker);
  }
}

/** Gives a worker its task and answers its questions until it is done. */
function converse(worker: Worker, task: Task, entries: FactorEntries | undefined): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  const post = (message: ToWorker) => worker.postMessage(message);
  const onMessage = (message: FromWorker) => {
    if ("result" in message) resolve(message.result);
    else if ("failure" in message) reject(rebuilt(message.failure));
    else {
      answer(message, entries!).then((value) => post({ answer: value }), (error) => {
        // The device's own error says more than what the worker would make of it.
        reject(error);
        post({ refusal: String(error) });
      });
    }
  };
  worker.on("message", onMessage);
  worker.on("error", reject);
  post({ task });
  return promise.finally(() => {
    worker.off("message", onMessage);
    worker.off("error", reject);
  });
}

async function answer(question: Question, entries: FactorEntries): Promise<unknown> {
  return question.ask === "largest"
    ? await entries.largest(...question.arguments)
    : await entries.signs(...question.arguments);
}

function rebuilt({ name, message, code, fix, where }: ErrorFields): Error {
  if (code === undefined || fix === undefined) return new Error(`${name}: ${message}`);
  if (name === "LegoError") return new LegoError(code, message, fix, where ?? "");
  return new MergeError(code, message, fix, where ?? "", "work");
}
