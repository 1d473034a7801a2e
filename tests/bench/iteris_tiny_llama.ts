/**
 * Merges adapters of the tiny-llama example with IterIS and scores the result:
 *
 *     deno run -A tests/bench/iteris_tiny_llama.ts [--device auto] [--methods iteris,iteris+] [--tasks language,category,…]
 *         [--samples 50] [--splices 0] [--options '{"alpha": 1e-3}'] [--limit 400] [--agreement 100]
 *         [--host-limit 512]
 *
 * Calibration text: the first rows of the training file, each with its own adapter's greedy answer. `agreement` rows from the 200th on
 * are answered by expert and merge and compared; test rows are only reported.
 */
import { parseArgs } from "@std/cli/parse-args";
import { openAdapter } from "@lora-loom/formats";
import {
  iteris,
  type IterisOptions,
  iterisPlus,
  type IterisPlusOptions,
  type Merged,
  type Sequence,
  splice,
  type Task,
} from "@lora-loom/iteris";
import { type Deltas, evaluate, loadDeltas, openModel, openTokenizer, readTask } from "@lora-loom/model";
import { openDevice } from "@lora-loom/tensor";
import { seeded } from "@lora-loom/testing";

const EXAMPLE = new URL("../../examples/tiny-llama/", import.meta.url).pathname;
const MAX_NEW_TOKENS = 6;
const FIRST_AGREEMENT_ROW = 200;

/** What the published method is compared by, and the recommended one, with their defaults. */
const METHODS: Readonly<Record<string, IterisOptions | IterisPlusOptions>> = {
  "iteris": {},
  "iteris parity": { schedule: "jacobi", iterations: 10, alpha: 1e-7 },
  "iteris first solve": { schedule: "jacobi", iterations: 1, alpha: 1e-7 },
  "iteris+": {},
};

const flags = parseArgs(Deno.args, {
  string: ["device", "methods", "tasks", "samples", "splices", "options", "limit", "agreement", "host-limit"],
  default: {
    device: "auto",
    methods: "iteris,iteris+",
    tasks: "language,category,speech,syllables",
    samples: "50",
    splices: "0",
    options: "{}",
    limit: "400",
    agreement: "0",
  },
});

await using device = await openDevice({ device: flags.device as "auto" });
using model = await openModel(device, `${EXAMPLE}base`);
const tokenizer = await openTokenizer(`${EXAMPLE}base`);
const eos = tokenizer.eosId!;
console.error(`${device.info.name}`);

const names = flags.tasks.split(",");
const loaded = new Map<
  string,
  { readonly deltas: Deltas; readonly task: Task; readonly prompts: string[]; readonly answers: string[] }
>();
const started = performance.now();
for (const name of names) loaded.set(name, await load(name));
console.error(`calibration text: ${seconds(started)} s`);

for (const method of flags.methods.split(",")) {
  const preset = METHODS[method];
  if (!preset) throw new Error(`unknown method ${method}; known: ${Object.keys(METHODS).join(", ")}`);
  const begun = performance.now();
  const merged = await merge(method, { ...preset, ...JSON.parse(flags.options) });
  const time = seconds(begun);
  const { meanErrors, passes } = merged.report;
  const scores = await score(merged.deltas);
  console.log(JSON.stringify({
    method,
    options: { ...preset, ...JSON.parse(flags.options) },
    seconds: time,
    passes,
    outputError: rounded(meanErrors),
    loss: mean(merged.report.sites.map(({ rank }) => rank.loss)).toPrecision(3),
    plainLoss: mean(merged.report.sites.map(({ rank }) => rank.plainLoss)).toPrecision(3),
    largestBackwardError: Math.max(...merged.report.sites.map(({ backwardError }) => backwardError))
      .toExponential(1),
    largestCondition: Math.max(...merged.report.sites.map(({ condition }) => condition)).toExponential(1),
    ...scores,
    peakDeviceMegabytes: Math.round(device.memory.peakBytes / 2 ** 20),
    residentMegabytes: Math.round(Deno.memoryUsage().rss / 2 ** 20),
  }));
}

async function load(name: string) {
  using adapter = await openAdapter(`${EXAMPLE}adapters/${name}`);
  const deltas = await loadDeltas(device, adapter);
  const rows = await readTask(`${EXAMPLE}tasks/${name}.train.jsonl`);
  const prompts = rows.slice(0, Number(flags.samples)).map(({ prompt }) => tokenizer.encode(prompt));
  const splices = splice(prompts, { count: Number(flags.splices), random: seeded(names.indexOf(name)) });
  const texts = [...prompts, ...splices];
  const completions = await model.generate(texts, deltas, { maxNewTokens: MAX_NEW_TOKENS, eos });
  const sequences = texts.map((prompt, index) => withAnswer(prompt, completions[index]!));
  const agreementRows = rows.slice(FIRST_AGREEMENT_ROW, FIRST_AGREEMENT_ROW + Number(flags.agreement));
  const { outputs } = agreementRows.length > 0
    ? await evaluate({ model, tokenizer, deltas, rows: agreementRows, maxNewTokens: MAX_NEW_TOKENS })
    : { outputs: [] };
  const prompted = agreementRows.map(({ prompt }) => prompt);
  return { deltas, task: { name, deltas, sequences }, prompts: prompted, answers: [...outputs] };
}

function withAnswer(prompt: Uint32Array, completion: Uint32Array): Sequence {
  const ended = completion.at(-1) === eos;
  return {
    tokens: Uint32Array.of(...prompt, ...completion, ...(ended ? [] : [eos])),
    answerStart: prompt.length,
  };
}

function merge(method: string, options: IterisOptions | IterisPlusOptions): Promise<Merged> {
  const tasks = [...loaded.values()].map(({ task }) => task);
  const progress = ({ stage, done, total }: { stage: string; done: number; total: number }) =>
    console.error(`${method}: ${done}/${total} ${stage}`);
  const memory = flags["host-limit"] === undefined ? {} : { hostSolverLimit: Number(flags["host-limit"]) };
  const request = { device, model, tasks, progress, memory };
  return method.startsWith("iteris+") ? iterisPlus({ ...request, options }) : iteris({ ...request, options });
}

async function score(deltas: Deltas) {
  const accuracy: Record<string, number> = {};
  const agreement: Record<string, number> = {};
  for (const [name, { prompts, answers }] of loaded) {
    const common = { model, tokenizer, deltas, maxNewTokens: MAX_NEW_TOKENS };
    const rows = await readTask(`${EXAMPLE}tasks/${name}.test.jsonl`, Number(flags.limit));
    accuracy[name] = (await evaluate({ ...common, rows })).accuracy;
    if (prompts.length === 0) continue;
    const expected = prompts.map((prompt, index) => ({ prompt, completion: answers[index]! }));
    agreement[name] = (await evaluate({ ...common, rows: expected })).accuracy;
  }
  return {
    test: { ...accuracy, mean: mean(Object.values(accuracy)) },
    agreement: { ...agreement, mean: mean(Object.values(agreement)) },
  };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function rounded<T extends object>(figures: T): Record<string, number> {
  return Object.fromEntries(Object.entries(figures).map(([key, value]) => [key, Number(value.toFixed(4))]));
}

function seconds(since: number): number {
  return Math.round((performance.now() - since) / 100) / 10;
}
