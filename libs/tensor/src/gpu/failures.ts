import { TensorError } from "../errors.ts";

/** Collects what goes wrong on a device between two waits, so that the next wait can throw it. */
export class FailureLog {
  #first: TensorError | undefined;
  #lost: TensorError | undefined;
  #closing = false;

  constructor(device: GPUDevice) {
    device.addEventListener("uncapturederror", (event) => {
      // Otherwise Dawn prints it.
      event.preventDefault();
      this.#record((event as GPUUncapturedErrorEvent).error);
    });
    device.lost.then(({ reason, message }) => {
      if (this.#closing) return;
      this.#lost = new TensorError(
        "device_lost",
        `the GPU device was lost (${reason}): ${message.trim()}`,
        "open a new device; if it happens again, use a smaller memoryBudgetBytes or `device: cpu`",
        "device",
      );
    });
  }

  /** From now on the loss of the device is meant. */
  close(): void {
    this.#closing = true;
  }

  #record(error: GPUError): void {
    const kind = error.constructor.name;
    // The first error is the cause; those that follow are its consequences.
    this.#first ??= kind === "GPUOutOfMemoryError"
      ? outOfMemory(`the GPU is out of memory: ${error.message.trim()}`)
      : new TensorError(
        "gpu_validation",
        `the GPU refused a command (${kind}): ${error.message.trim()}`,
        "this is a defect of the operation that was queued; report it with the output of `deno task doctor`",
        "queue",
      );
  }

  /** Turns what a wait rejected with into an error of this library. */
  explain(error: unknown): TensorError {
    if (error instanceof TensorError) return error;
    return this.#lost ?? this.#first ?? new TensorError(
      "gpu_wait_failed",
      `waiting for the GPU failed: ${error instanceof Error ? error.message : error}`,
      "open a new device; if it happens again, use `device: cpu`",
      "queue",
    );
  }

  /** Throws what was recorded, once; a lost device is thrown every time. */
  throwIfAny(): void {
    if (this.#lost) throw this.#lost;
    const first = this.#first;
    this.#first = undefined;
    if (first) throw first;
  }
}

/** The error for memory that ran out, whether the GPU's or the budget. */
export function outOfMemory(message: string): TensorError {
  return new TensorError(
    "out_of_memory",
    message,
    "dispose tensors earlier, work on fewer modules or samples at a time, raise the memory budget, or use `device: cpu`",
    "memory",
  );
}
