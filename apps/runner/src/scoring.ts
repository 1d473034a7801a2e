import { basename } from "node:path";
import { openAdapter } from "@lora-loom/formats";
import { MergeError } from "@lora-loom/merge";
import {
  type BaseModel,
  type Deltas,
  disposeDeltas,
  evaluate,
  loadDeltas,
  readTask,
  type TaskRow,
  type Tokenizer,
} from "@lora-loom/model";
import type { Device } from "@lora-loom/tensor";
import type { Terminal } from "./command.ts";

/** Tokens beyond the longest completion: its end, and room for another tokenization in context. */
const SPARE_TOKENS = 4;

/** One task: a file of prompts and completions. */
export interface Task {
  readonly name: string;
  readonly rows: readonly TaskRow[];
}

/** A row of the result. */
export interface Score {
  readonly adapter: string;
  readonly task: string;
  readonly accuracy: number;
  readonly n: number;
}

/** How results call the base model without an adapter. */
export const BASE_ALONE = "(none)";

/** A flag's whole number of at least 1. */
export function wholeNumber(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new MergeError(
    "invalid_flag",
    `--${flag} takes a whole number of at least 1, found ${JSON.stringify(text)}`,
    `write --${flag} 100, or leave it out`,
    `--${flag}`,
  );
}

/** `tasks/language.test.jsonl` is the task `language.test`. */
function taskName(path: string): string {
  return basename(path).replace(/\.jsonl?$/, "");
}

/** Reads the files of `--data`. */
export async function readTasks(paths: readonly string[], limit: number | undefined): Promise<Task[]> {
  const tasks: Task[] = [];
  for (const path of paths) tasks.push({ name: taskName(path), rows: await readTask(path, limit) });
  return tasks;
}

/** Enough for every right answer: one that goes on beyond it is wrong. */
function tokensNeeded(tokenizer: Tokenizer, rows: readonly TaskRow[]): number {
  return SPARE_TOKENS +
    rows.reduce((most, { completion }) => Math.max(most, tokenizer.encode(completion).length), 0);
}

async function adapterDeltas(device: Device, model: BaseModel, path: string): Promise<Deltas> {
  const adapter = await openAdapter(path);
  try {
    const deltas = await loadDeltas(device, adapter);
    try {
      model.checkDeltas(deltas);
      return deltas;
    } catch (error) {
      disposeDeltas(deltas);
      throw error;
    }
  } finally {
    adapter.close();
  }
}

/** What adapters are measured on. */
export interface Setting {
  readonly device: Device;
  readonly model: BaseModel;
  readonly tokenizer: Tokenizer;
  readonly tasks: readonly Task[];
  readonly maxNewTokens: number | undefined;
  readonly terminal: Terminal;
}

/** Accuracy of deltas on every task. */
export async function scoreAll(setting: Setting, adapter: string, deltas: Deltas): Promise<Score[]> {
  const { model, tokenizer, tasks, terminal } = setting;
  const scores: Score[] = [];
  for (const { name, rows } of tasks) {
    terminal.signal.throwIfAborted();
    terminal.status(`${adapter} on ${name}: ${rows.length} rows`);
    const maxNewTokens = setting.maxNewTokens ?? tokensNeeded(tokenizer, rows);
    const { accuracy, n } = await evaluate({ model, tokenizer, deltas, rows, maxNewTokens });
    scores.push({ adapter, task: name, accuracy, n });
  }
  return scores;
}

/** Accuracy of the adapter at a path on every task. */
export async function scoreAdapter(setting: Setting, path: string, label = path): Promise<Score[]> {
  const deltas = await adapterDeltas(setting.device, setting.model, path);
  try {
    return await scoreAll(setting, label, deltas);
  } finally {
    disposeDeltas(deltas);
  }
}
