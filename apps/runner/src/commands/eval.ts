import { DEVICE_CHOICES, type DeviceChoice, MergeError, WEIGHT_CHOICES } from "@lora-loom/merge";
import { openModel, openTokenizer, type ResidencyChoice } from "@lora-loom/model";
import { openDevice } from "@lora-loom/tensor";
import type { Command } from "../command.ts";
import {
  BASE_ALONE,
  readTasks,
  type Score,
  scoreAdapter,
  scoreAll,
  type Setting,
  wholeNumber,
} from "../scoring.ts";
import { short, table } from "../text.ts";

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
      help: "an adapter; without one, the base alone",
    },
    {
      name: "data",
      type: "list",
      value: "FILE",
      help: 'rows {"prompt": …, "completion": …}, one a line',
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
    {
      name: "weights",
      type: "string",
      value: "WHERE",
      choices: WEIGHT_CHOICES,
      help: `where the model's weights are between uses: ${WEIGHT_CHOICES.join(", ")}`,
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
    const residency = (flags.string("weights") ?? "auto") as ResidencyChoice;
    using model = await openModel(device, directory, { residency });
    const setting: Setting = { device, model, tokenizer, tasks, maxNewTokens, terminal };
    const paths = flags.list("adapter");
    const scores = paths.length === 0 ? await scoreAll(setting, BASE_ALONE, new Map()) : [];
    for (const path of paths) scores.push(...await scoreAdapter(setting, path));
    const mean = scores.reduce((sum, { accuracy }) => sum + accuracy, 0) / scores.length;
    terminal.out(flags.boolean("json") ? JSON.stringify({ rows: scores, mean }) : scoresText(scores, mean));
    return 0;
  },
};

function missingFlag(name: string, what: string): MergeError {
  return new MergeError("missing_flag", `--${name} is missing`, `add ${what}`, `--${name}`);
}
