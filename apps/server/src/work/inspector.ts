import { crashed, failedWork } from "./failed_work.ts";
import type { InspectionWork } from "./inspection.ts";
import type { CallMessage, ReplyMessage } from "./messages.ts";

/** Milliseconds after which a call counts as hanging. */
const TIMEOUT = 10 * 60 * 1000;

interface Waiting {
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/** Looks at adapters in a thread of its own, which is started at once and again when it ends. */
export class Inspector implements InspectionWork {
  #worker: Worker | undefined;
  #next = 0;
  #isClosed = false;
  readonly #waiting = new Map<number, Waiting>();

  constructor() {
    this.#start();
  }

  readonly describe: InspectionWork["describe"] = (place) => this.#call("describe", place);
  readonly inspect: InspectionWork["inspect"] = (place) => this.#call("inspect", place);
  readonly plan: InspectionWork["plan"] = (recipe) => this.#call("plan", recipe);
  readonly countRows: InspectionWork["countRows"] = (bytes) => this.#call("countRows", bytes);
  readonly convert: InspectionWork["convert"] = (order) => this.#call("convert", order);

  close(): void {
    this.#isClosed = true;
    this.#end();
  }

  #call<T>(call: string, argument: unknown): Promise<T> {
    if (this.#isClosed) return Promise.reject(crashed());
    const id = this.#next++;
    const message: CallMessage = { id, call, argument };
    return new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => this.#end(`no answer in ${TIMEOUT / 1000} seconds`), TIMEOUT);
      const settle = <A>(act: (value: A) => void) => (value: A) => {
        clearTimeout(timer);
        this.#waiting.delete(id);
        act(value);
      };
      this.#waiting.set(id, { resolve: settle(resolve as (value: unknown) => void), reject: settle(reject) });
      this.#start().postMessage(message);
    });
  }

  #start(): Worker {
    if (this.#worker) return this.#worker;
    const worker = new Worker(new URL("./inspection_worker.ts", import.meta.url), { type: "module" });
    worker.addEventListener("message", ({ data }: MessageEvent<ReplyMessage>) => {
      const waiting = this.#waiting.get(data.id);
      if (data.error) waiting?.reject(failedWork(data.error));
      else waiting?.resolve(data.value);
    });
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#end(event.message);
    });
    return this.#worker = worker;
  }

  #end(reason?: string): void {
    this.#worker?.terminate();
    this.#worker = undefined;
    if (reason !== undefined) console.error(`inspection: ${reason}`);
    const error = crashed();
    for (const { reject } of [...this.#waiting.values()]) reject(error);
  }
}
