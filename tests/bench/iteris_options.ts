/**
 * What every option of IterIS does on an example model: merges under each setting, then scores on the test rows.
 * The tables of docs/methods/iteris.md are printed by
 *
 *     deno run -A tests/bench/iteris_options.ts [--model tiny-llama] [--device auto] [--only PATTERN] [--limit 400]
 *
 * `agreement` is on unlabeled training prompts that no calibration saw, and is what settings may be chosen by; the test rows are
 * only reported. With 400 rows a task, a mean of four tasks has a standard error of about 0.012.
 */
import { parseArgs } from "@std/cli/parse-args";
import { type MergeSummary, recipeFromObject, runMerge } from "@lora-loom/merge";
import { openModel, openTokenizer } from "@lora-loom/model";
import { type DeviceChoice, openDevice } from "@lora-loom/tensor";
import { accuraciesOf } from "../support/accuracies.ts";
import { fromFileUrl } from "../support/paths.ts";

const EXAMPLES = fromFileUrl(new URL("../../examples/", import.meta.url));
const TASKS = `${EXAMPLES}tiny-llama/tasks`;
const ALL = ["language", "category", "speech", "syllables"];
const PAIR = ["language", "category"];

/** One line of a table. */
interface Variant {
  readonly label: string;
  readonly method: string;
  readonly parameters?: Readonly<Record<string, string | number | boolean>>;
  /** Weight of every adapter. */
  readonly weight?: number;
}

interface Table {
  readonly title: string;
  readonly tasks: readonly string[];
  readonly variants: readonly Variant[];
}

const plain: readonly Variant[] = [
  { label: "sum of the deltas", method: "cat" },
  { label: "svd, rank 16", method: "svd", parameters: { rank: 16 } },
  { label: "ties", method: "ties" },
  { label: "lego, rank 16", method: "lego", parameters: { rank: 16 } },
];

const iteris = (label: string, parameters: Variant["parameters"] = {}): Variant => ({
  label,
  method: "iteris",
  parameters,
});
const plus = (label: string, parameters: Variant["parameters"] = {}): Variant => ({
  label,
  method: "iteris+",
  parameters,
});

const TABLES: readonly Table[] = [
  {
    title: "The methods, four adapters",
    tasks: ALL,
    variants: [
      { label: "mean of the deltas", method: "cat", weight: 1 / 4 },
      ...plain,
      iteris("iteris, as published: jacobi, 10 iterations, alpha 1e-7", {
        schedule: "jacobi",
        iterations: 10,
        alpha: 1e-7,
      }),
      iteris("iteris"),
      plus("iteris+"),
      plus("iteris+, tune: agreement", { tune: "agreement" }),
    ],
  },
  {
    title: "The methods, language + category",
    tasks: PAIR,
    variants: [
      { label: "mean of the deltas", method: "cat", weight: 1 / 2 },
      ...plain,
      iteris("iteris, as published: jacobi, 10 iterations, alpha 1e-7", {
        schedule: "jacobi",
        iterations: 10,
        alpha: 1e-7,
      }),
      iteris("iteris"),
      plus("iteris+"),
      plus("iteris+, tune: agreement", { tune: "agreement" }),
    ],
  },
  {
    title: "Parity, four adapters",
    tasks: ALL,
    variants: [
      iteris("jacobi, first solve, alpha 1e-7", { schedule: "jacobi", iterations: 1, alpha: 1e-7 }),
      iteris("jacobi, 5 iterations, 200 samples, alpha 1e-4", {
        schedule: "jacobi",
        iterations: 5,
        samples: 200,
      }),
    ],
  },
  {
    title: "Parity, language + category",
    tasks: PAIR,
    variants: [
      iteris("jacobi, 5 iterations, 200 samples, alpha 1e-4", {
        schedule: "jacobi",
        iterations: 5,
        samples: 200,
      }),
    ],
  },
  {
    title: "Options of iteris, four adapters",
    tasks: ALL,
    variants: [
      iteris("defaults"),
      iteris("schedule: jacobi, iterations: 1 (the first solve)", { schedule: "jacobi", iterations: 1 }),
      iteris("schedule: jacobi, iterations: 10", { schedule: "jacobi" }),
      iteris("alpha: 1e-7", { alpha: 1e-7 }),
      iteris("alpha: 1e-3", { alpha: 1e-3 }),
      iteris("alpha: auto", { alpha: "auto" }),
      iteris("adaptive_weights: delta", { adaptive_weights: "delta" }),
      iteris("adaptive_weights: none", { adaptive_weights: "none" }),
      iteris("rank: 16", { rank: 16 }),
      iteris("rank: 16, truncation: plain", { rank: 16, truncation: "plain" }),
      iteris("samples: 200", { samples: 200 }),
    ],
  },
  {
    title: "Options of iteris+, four adapters",
    tasks: ALL,
    variants: [
      plus("defaults"),
      plus("drift: false, stream: false", { drift: false, stream: false }),
      plus("stream: false", { stream: false }),
      plus("alpha: 1e-5", { alpha: 1e-5 }),
      plus("alpha: 1e-3", { alpha: 1e-3 }),
      plus("alpha: auto", { alpha: "auto" }),
      plus("token_weight: 0.3", { token_weight: 0.3 }),
      plus("token_weight: 0.3, alpha: 1e-3", { token_weight: 0.3, alpha: 1e-3 }),
      plus("splices: 150", { splices: 150 }),
      plus("token_weight: 0.3, alpha: 1e-3, splices: 150", { token_weight: 0.3, alpha: 1e-3, splices: 150 }),
      plus("rank: 16", { rank: 16 }),
      plus("rank: 16, truncation: plain", { rank: 16, truncation: "plain" }),
      plus("samples: 200", { samples: 200 }),
    ],
  },
];

const flags = parseArgs(Deno.args, {
  string: ["model", "device", "only", "limit"],
  default: { model: "tiny-llama", device: "auto", only: "", limit: "400" },
});
const EXAMPLE = `${EXAMPLES}${flags.model}/`;

await using device = await openDevice({ device: flags.device as DeviceChoice });
using model = await openModel(device, `${EXAMPLE}base`);
const tokenizer = await openTokenizer(`${EXAMPLE}base`);
const folder = await Deno.makeTempDir({ prefix: "loom-iteris-" });

async function mergeWith(
  tasks: readonly string[],
  { method, parameters, weight = 1 }: Variant,
): Promise<MergeSummary> {
  const recipe = recipeFromObject({
    method,
    base_model: "base",
    adapters: tasks.map((task) => ({
      path: `adapters/${task}`,
      weight,
      calibration: `${TASKS}/${task}.train.jsonl`,
    })),
    parameters,
    output: { path: `${folder}/merged` },
  }, EXAMPLE);
  return await runMerge(recipe, { device, force: true });
}

function accuracies(tasks: readonly string[]): Promise<number[]> {
  const files = tasks.map((task) => `${TASKS}/${task}.test.jsonl`);
  return accuraciesOf(`${folder}/merged`, files, { device, model, tokenizer, limit: Number(flags.limit) });
}

function cells({ quality, seconds }: MergeSummary, scores: readonly number[]): string[] {
  const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length;
  return [
    quality.output_error?.merged.toFixed(3) ?? "–",
    quality.agreement?.merged.mean.toFixed(3) ?? "–",
    `**${mean.toFixed(3)}**`,
    ...scores.map((score) => score.toFixed(3)),
    seconds.total.toFixed(0),
  ];
}

console.log(`Device: ${device.info.name}.`);
try {
  for (const { title, tasks, variants } of TABLES) {
    const chosen = variants.filter(({ label, method }) =>
      new RegExp(flags.only).test(`${title}: ${method} ${label}`)
    );
    if (chosen.length === 0) continue;
    const header = ["setting", "output error", "agreement", "test mean", ...tasks, "seconds"];
    console.log(`\n### ${title}\n\n| ${header.join(" | ")} |\n| --- |${" ---: |".repeat(header.length - 1)}`);
    for (const variant of chosen) {
      const summary = await mergeWith(tasks, variant);
      console.log(`| ${[variant.label, ...cells(summary, await accuracies(tasks))].join(" | ")} |`);
    }
  }
} finally {
  await Deno.remove(folder, { recursive: true });
}
