/** A thread that takes decisions of LoRA-LEGO and of truncation, one at a time. */
import { parentPort } from "node:worker_threads";
import { decide, decideTruncation, type FactorEntries } from "@lora-loom/lego";
import type { ErrorFields, FromWorker, Question, Task, ToWorker } from "./messages.ts";

let pending: { resolve(answer: unknown): void; reject(error: Error): void } | undefined;

function send(message: FromWorker): void {
  parentPort!.postMessage(message);
}

function ask(question: Question): Promise<never> {
  return new Promise((resolve, reject) => {
    pending = { resolve: resolve as (answer: unknown) => void, reject };
    send(question);
  });
}

/** The factors stay where they are: every look at them is a question to the owner. */
const entries: FactorEntries = {
  largest: (...args) => ask({ ask: "largest", arguments: args }),
  signs: (...args) => ask({ ask: "signs", arguments: args }),
};

async function run(task: Task): Promise<void> {
  try {
    const result = task.kind === "clusters"
      ? await decide(task.stack, task.options, entries)
      : decideTruncation(task.stack, task.options);
    send({ result });
  } catch (error) {
    send({ failure: fieldsOf(error) });
  }
}

function fieldsOf(error: unknown): ErrorFields {
  const { name, message, code, fix, where } = error as
    & Error
    & Partial<Record<"code" | "fix" | "where", string>>;
  return { name, message, code, fix, where };
}

parentPort!.on("message", (message: ToWorker) => {
  if ("task" in message) run(message.task);
  else if ("answer" in message) pending?.resolve(message.answer);
  else pending?.reject(new Error(message.refusal));
});
