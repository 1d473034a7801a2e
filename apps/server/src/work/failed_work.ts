import { type ErrorReport, MergeError } from "@lora-loom/merge";

/** An error that happened in another thread, as one of this thread. */
export function failedWork({ code, message, fix, where, blame }: ErrorReport): MergeError {
  return new MergeError(code, message, fix, where, blame);
}

/** What to say when a thread ended without an answer. Why it did is for the log. */
export function crashed(): MergeError {
  return new MergeError(
    "worker_crashed",
    "the thread that did the work ended before it was done",
    "try again; look at the server's log if it happens again",
    "",
    "work",
  );
}
