import type { decide, decideTruncation, FactorEntries } from "@lora-loom/lego";

/** The decisions that a worker can take: functions of `@lora-loom/lego` without what lives on the device. */
export type Task =
  | {
    readonly kind: "clusters";
    readonly stack: Parameters<typeof decide>[0];
    readonly options: Parameters<typeof decide>[1];
  }
  | {
    readonly kind: "truncation";
    readonly stack: Parameters<typeof decideTruncation>[0];
    readonly options: Parameters<typeof decideTruncation>[1];
  };

/** A call of the factors' own entries, which only the owner of the device can answer. */
export type Question = {
  [Name in keyof FactorEntries]: { readonly ask: Name; readonly arguments: Parameters<FactorEntries[Name]> };
}[keyof FactorEntries];

/** An error's fields: classes do not survive the way between threads. */
export interface ErrorFields {
  readonly name: string;
  readonly code: string | undefined;
  readonly message: string;
  readonly fix: string | undefined;
  readonly where: string | undefined;
}

/** What the owner sends: a task, or the answer to a question. */
export type ToWorker = { readonly task: Task } | { readonly answer: unknown } | { readonly refusal: string };

/** What a worker sends: a question, or the end of its task. */
export type FromWorker = Question | { readonly result: unknown } | { readonly failure: ErrorFields };
