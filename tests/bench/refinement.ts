/**
 * What gradients add on an example model: the output metric of iteris+ and the refinement of finished merges, over several
 * calibration draws and seeds. The tables of docs/methods/refinement_measured.md are printed by
 *
 *     deno run -A tests/bench/refinement.ts [--model tiny-llama] [--device auto] [--seeds 3] [--ranks 32,16,8] [--only PATTERN]
 *       [--first-seed 42] [--steps 100] [--limit 400] [--json FILE]
 *
 * `--model tiny-t5` does it for the encoder-decoder; `--steps` shortens all refinements, to try the program out.
 * A draw shuffles the train rows of every task with its seed, calibrates on the first ones and measures agreement on the next; the seed
 * also decides splices, sampled gradients and minibatches. `agreement` is on unlabeled train prompts that nothing was fitted to, and is
 * what settings may be chosen by; the test rows are only reported. Cells are the mean over the draws ± half their range. `kept` says for each draw
 * which step of a refinement was kept, or what `metric: auto` kept and how much more the merge with the metric agreed, ± the standard error of
 * the differences prompt by prompt. `--only` is matched against "four adapters, rank 32: iteris+, metric: auto" and the like, for one row a command.
 */
import { parseArgs } from "@std/cli/parse-args";
import {
  type MergeSummary,
  recipeFromObject,
  runMerge,
  type TriedSetting,
  triedSettings,
} from "@lora-loom/merge";
import { openModel, openTokenizer } from "@lora-loom/model";
import { type DeviceChoice, openDevice } from "@lora-loom/tensor";
import { seeded } from "@lora-loom/testing";
import { accuraciesOf } from "../support/accuracies.ts";
import { fromFileUrl } from "../support/paths.ts";

const EXAMPLES = fromFileUrl(new URL("../../examples/", import.meta.url));
/** The same for all models. */
const TASKS = `${EXAMPLES}tiny-llama/tasks`;
const FIRST_SEED = 42;

type Values = Readonly<Record<string, string | number | boolean>>;

/** One line of a table. */
interface Variant {
  readonly label: string;
  readonly method: string;
  readonly parameters?: Values;
  readonly refine?: Values;
}

const TABLES: readonly { readonly title: string; readonly tasks: readonly string[] }[] = [
  { title: "four adapters", tasks: ["language", "category", "speech", "syllables"] },
  { title: "language + category", tasks: ["language", "category"] },
];

const metric = (label: string, parameters: Values = {}, refine?: Values): Variant => ({
  label: `iteris+, metric: output${label}`,
  method: "iteris+",
  parameters: { metric: "output", ...parameters },
  ...(refine ? { refine } : {}),
});
/** What the experiments behind these options chose for this example by agreement. */
const CHOSEN = {
  alpha: 3e-3,
  token_weight: 0.1,
  splices: 450,
  metric_temperature: 2,
  metric_damping: 0.03,
};

/** What of that is not of the metric. */
const CHOSEN_WITHOUT = { alpha: 3e-3, token_weight: 0.1, splices: 450 };

/** Without gradients: a start that is fitted less closely to the calibration prompts. */
const FIRM = { alpha: 3e-3, token_weight: 0.3, splices: 150 };
const LONGER = { steps: 300, splices: 600, learning_rate: 2e-3 };

const VARIANTS: readonly Variant[] = [
  { label: "svd", method: "svd" },
  { label: "svd, refine", method: "svd", refine: {} },
  { label: "iteris", method: "iteris" },
  { label: "iteris, refine", method: "iteris", refine: {} },
  { label: "iteris, alpha: 1e-2, refine", method: "iteris", parameters: { alpha: 1e-2 }, refine: {} },
  { label: "iteris, refine: longer", method: "iteris", refine: LONGER },
  { label: "iteris+", method: "iteris+" },
  { label: "iteris+, refine without splices", method: "iteris+", refine: { splices: 0 } },
  { label: "iteris+, refine", method: "iteris+", refine: {} },
  { label: "iteris+, firm, refine", method: "iteris+", parameters: FIRM, refine: {} },
  { label: "iteris+, chosen without metric", method: "iteris+", parameters: CHOSEN_WITHOUT },
  metric(", one sweep", { metric_sweeps: 1 }),
  metric(""),
  { label: "iteris+, metric: auto", method: "iteris+", parameters: { metric: "auto" } },
  { label: "iteris+, metric: auto, chosen", method: "iteris+", parameters: { ...CHOSEN, metric: "auto" } },
  metric(", alpha: 1e-3", { alpha: 1e-3 }),
  metric(", metric_damping: 0.03", { metric_damping: 0.03 }),
  metric(", splices: 150", { splices: 150 }),
  metric(", chosen", CHOSEN),
  metric(", refine", {}, {}),
  metric(", chosen, refine", CHOSEN, {}),
  metric(", chosen, refine: longer", CHOSEN, LONGER),
];

/** What one merge came to. */
interface Measured {
  readonly agreement: number;
  readonly scores: readonly number[];
  readonly seconds: number;
  readonly keptStep: number | undefined;
  /** What `metric: auto` tried. */
  readonly tried: readonly TriedSetting[] | undefined;
}

const flags = parseArgs(Deno.args, {
  string: ["model", "device", "seeds", "first-seed", "ranks", "only", "steps", "limit", "json"],
  default: {
    model: "tiny-llama",
    device: "auto",
    seeds: "3",
    "first-seed": "42",
    ranks: "32,16,8",
    only: "",
    steps: "",
    limit: "400",
    json: "",
  },
});

await using device = await openDevice({ device: flags.device as DeviceChoice });
const base = `${EXAMPLES}${flags.model}/base`;
using model = await openModel(device, base);
const tokenizer = await openTokenizer(base);
const folder = await Deno.makeTempDir({ prefix: "loom-refinement-" });

/** The train rows of a task in the order of one draw. */
async function drawRows(task: string, seed: number): Promise<string> {
  const path = `${folder}/${task}-${seed}.jsonl`;
  const rows = (await Deno.readTextFile(`${TASKS}/${task}.train.jsonl`)).trimEnd().split("\n");
  const random = seeded(seed);
  for (let i = rows.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [rows[i], rows[j]] = [rows[j]!, rows[i]!];
  }
  await Deno.writeTextFile(path, rows.join("\n") + "\n");
  return path;
}

async function mergeWith(
  tasks: readonly string[],
  { method, parameters = {}, refine }: Variant,
  rank: number,
  seed: number,
): Promise<MergeSummary> {
  const adapters = [];
  for (const task of tasks) {
    // The first draw takes the rows as they come, which is what the other tables do.
    const calibration = seed === FIRST_SEED ? `${TASKS}/${task}.train.jsonl` : await drawRows(task, seed);
    adapters.push({ path: `${EXAMPLES}${flags.model}/adapters/${task}`, calibration });
  }
  const recipe = recipeFromObject({
    method,
    base_model: base,
    adapters,
    parameters: { ...parameters, rank },
    ...(refine ? { refine: { ...refine, ...(flags.steps ? { steps: Number(flags.steps) } : {}) } } : {}),
    output: { path: `${folder}/merged` },
    seed,
  }, folder);
  return await runMerge(recipe, { device, force: true });
}

function accuracies(tasks: readonly string[]): Promise<number[]> {
  const files = tasks.map((task) => `${TASKS}/${task}.test.jsonl`);
  return accuraciesOf(`${folder}/merged`, files, { device, model, tokenizer, limit: Number(flags.limit) });
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** `0.701 ± 0.012`, the second number being half the range. */
function spread(values: readonly number[]): string {
  if (values.some(Number.isNaN)) return "–";
  const half = (Math.max(...values) - Math.min(...values)) / 2;
  return `${mean(values).toFixed(3)} ± ${half.toFixed(3)}`;
}

/** What was kept, and by how much the second setting agreed more than the first: `output +0.049 ± 0.021`. */
function choiceOf(tried: readonly TriedSetting[]): string {
  return `${tried.find(({ kept }) => kept)!.metric} ${triedSettings(tried)[1]!.difference}`;
}

function cells(measured: readonly Measured[], tasks: readonly string[]): string[] {
  const kept = measured.flatMap(({ keptStep, tried }) => keptStep ?? (tried ? choiceOf(tried) : []));
  return [
    spread(measured.map(({ agreement }) => agreement)),
    `**${spread(measured.map(({ scores }) => mean(scores)))}**`,
    ...tasks.map((_, index) => mean(measured.map(({ scores }) => scores[index]!)).toFixed(3)),
    kept.length > 0 ? kept.join(", ") : "–",
    mean(measured.map(({ seconds }) => seconds)).toFixed(0),
  ];
}

console.log(`${flags.model}. Device: ${device.info.name}.`);
const seeds = Array.from({ length: Number(flags.seeds) }, (_, index) => Number(flags["first-seed"]) + index);
const raw: unknown[] = [];
try {
  for (const { title, tasks } of TABLES) {
    for (const rank of flags.ranks.split(",").map(Number)) {
      const chosen = VARIANTS.filter(({ label }) =>
        new RegExp(flags.only).test(`${title}, rank ${rank}: ${label}`)
      );
      if (chosen.length === 0) continue;
      const header = ["setting", "agreement", "test mean", ...tasks, "kept", "seconds"];
      console.log(
        `\n### ${title}, rank ${rank}\n\n| ${header.join(" | ")} |\n| --- |${
          " ---: |".repeat(header.length - 1)
        }`,
      );
      for (const variant of chosen) {
        const measured: Measured[] = [];
        for (const seed of seeds) {
          const { quality, seconds, refinement } = await mergeWith(tasks, variant, rank, seed);
          measured.push({
            agreement: quality.agreement?.merged.mean ?? NaN,
            scores: await accuracies(tasks),
            seconds: seconds.total,
            keptStep: refinement?.kept_step,
            tried: quality.tried,
          });
          raw.push({ table: title, rank, variant: variant.label, seed, ...measured.at(-1)! });
          if (flags.json) await Deno.writeTextFile(flags.json, JSON.stringify(raw, null, 1));
        }
        console.log(`| ${[variant.label, ...cells(measured, tasks)].join(" | ")} |`);
      }
    }
  }
} finally {
  await Deno.remove(folder, { recursive: true });
}
