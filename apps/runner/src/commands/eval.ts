import { basename } from "node:path";
import { openAdapter } from "@lora-loom/formats";
import { DEVICE_CHOICES, type DeviceChoice, MergeError } from "@lora-loom/merge";
import {
  type Deltas,
  disposeDeltas,
  evaluate,
  type LlamaModel,
  loadDeltas,
  openModel,
  openTokenizer,
  readTask,
  type TaskRow,
  type Tokenizer,
} from "@lora-loom/model";
import { type Device, openDevice } from "@lora-loom/tensor";
import type { Command, Terminal } from "../command.ts";
import { short, table } from "../text.ts";

/** Tokens beyond the longest completion: its end, and room for another tokenization in context. */
const SPARE_TOKENS = 4;

/** One task: a file of prompts and completions. */
interface Task {
  readonly name: string;
  readonly rows: readonly TaskRow[];
}

/** A row of the result. */
interface Score {
  readonly adapter: string;
  readonly task: string;
  readonly accuracy: number;
  readonly n: number;
}

const BASE_ALONE = "(none)";

function wholeNumber(flag: string, text: string | undefined): number | undefined {
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

async function readTasks(paths: readonly string[], limit: number | undefined): Promise<Task[]> {
  const tasks: Task[] = [];
  for (const path of paths) tasks.push({ name: taskName(path), rows: await readTask(path, limit) });
  return tasks;
}

/** Enough for every right answer: one that goes on beyond it is wrong. */
function tokensNeeded(tokenizer: Tokenizer, rows: readonly TaskRow[]): number {
  return SPARE_TOKENS +
    rows.reduce((most, { completion }) => Math.max(most, tokenizer.encode(completion).length), 0);
}

async function adapterDeltas(device: Device, model: LlamaModel, path: string): Promise<Deltas> {
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

interface Setting {
  readonly model: LlamaModel;
  readonly tokenizer: Tokenizer;
  readonly tasks: readonly Task[];
  readonly maxNewTokens: number | undefined;
  readonly terminal: Terminal;
}

async function scoreAll(setting: Setting, adapter: string, deltas: Deltas): Promise<Score[]> {
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

function scoresText(scores: readonly Score[], mean: number): string {
  const rows = scores.map(({ adapter, task, accuracy, n }) => [adapter, task, accuracy.toFixed(4), n]);
  return `${table(["adapter", "task", "accuracy", "rows"], rows)}\n\nmean ${short(mean)}`;
}

export const evalCommand: Command = {
  name: "eval",
  summary: "Measures how often greedy completions are right, for every adapter on every task.",
  usage: "",
  arity: [0, 0],
  flags: [
    { name: "model", type: "string", value: "DIR", help: "the base model's folder" },
    {
      name: "adapter",
      type: "list",
      value: "DIR",
      help: "an adapter; may be repeated; without one, the base alone",
    },
    {
      name: "data",
      type: "list",
      value: "FILE",
      help: 'rows {"prompt": …, "completion": …}, one a line; may be repeated',
    },
    { name: "limit", type: "string", value: "N", help: "use the first N rows of each file" },
    {
      name: "max-new-tokens",
      type: "string",
      value: "N",
      help: "longest completion; by default enough for the longest right answer",
    },
    {
      name: "device",
      type: "string",
      value: "DEVICE",
      choices: DEVICE_CHOICES,
      help: `where to compute: ${DEVICE_CHOICES.join(", ")}`,
    },
  ],
  examples: [
    [
      "deno task eval --model examples/tiny-llama/base --adapter examples/tiny-llama/adapters/language --data examples/tiny-llama/tasks/language.test.jsonl",
      "one adapter on its own task",
    ],
    [
      "deno task eval --model examples/tiny-llama/base --data examples/tiny-llama/tasks/language.test.jsonl --limit 50 --json",
      "the base model alone on 50 rows, as JSON",
    ],
  ],
  async run({ flags }, terminal) {
    const directory = flags.string("model");
    const data = flags.list("data");
    if (directory === undefined) throw missingFlag("model", "--model DIR, the base model's folder");
    if (data.length === 0) throw missingFlag("data", "--data FILE, with rows of prompts and completions");
    const tasks = await readTasks(data, wholeNumber("limit", flags.string("limit")));
    const maxNewTokens = wholeNumber("max-new-tokens", flags.string("max-new-tokens"));
    const tokenizer = await openTokenizer(directory);
    await using device = await openDevice({ device: (flags.string("device") ?? "auto") as DeviceChoice });
    using model = await openModel(device, directory);
    const setting: Setting = { model, tokenizer, tasks, maxNewTokens, terminal };
    const paths = flags.list("adapter");
    const scores = paths.length === 0 ? await scoreAll(setting, BASE_ALONE, new Map()) : [];
    for (const path of paths) {
      const deltas = await adapterDeltas(device, model, path);
      try {
        scores.push(...await scoreAll(setting, path, deltas));
      } finally {
        disposeDeltas(deltas);
      }
    }
    const mean = scores.reduce((sum, { accuracy }) => sum + accuracy, 0) / scores.length;
    terminal.out(flags.boolean("json") ? JSON.stringify({ rows: scores, mean }) : scoresText(scores, mean));
    return 0;
  },
};

function missingFlag(name: string, what: string): MergeError {
  return new MergeError("missing_flag", `--${name} is missing`, `add ${what}`, `--${name}`);
}
