import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import {
  checkOutputPath,
  type ComparedMerge,
  compareMerges,
  comparisonReport,
  DEVICE_CHOICES,
  type DeviceChoice,
  loadVariants,
  meanAccuracy,
  MergeError,
  parseSweep,
  type Recipe,
  type ScoredMerge,
  type Variant,
} from "@lora-loom/merge";
import { refuseInputs, writeFileAtomic } from "@lora-loom/formats";
import { openModel, openTokenizer } from "@lora-loom/model";
import { type Device, openDevice } from "@lora-loom/tensor";
import type { Command, Flags, Terminal } from "../command.ts";
import { reportError } from "../errors.ts";
import { checkReportFile } from "../report_file.ts";
import { readTasks, scoreAdapter, type Task, wholeNumber } from "../scoring.ts";
import { short, table } from "../text.ts";

function comparisonText(merges: readonly ScoredMerge[]): string {
  const adapters = Object.keys(merges[0]!.quality.cosine_to_sources);
  const tasks = Object.keys(merges[0]!.accuracy ?? {});
  const header = [
    "merge",
    "rank",
    "parameters",
    "seconds",
    "lost",
    ...adapters.map((name) => `cos ${name}`),
    ...tasks,
    ...(tasks.length > 1 ? ["mean"] : []),
  ];
  const rows = merges.map((merge) => [
    merge.label,
    merge.rank,
    merge.parameters,
    merge.seconds.toFixed(2),
    merge.quality.loss.toFixed(4),
    ...adapters.map((name) => merge.quality.cosine_to_sources[name]!.toFixed(4)),
    ...tasks.map((name) => merge.accuracy![name]!.toFixed(4)),
    ...(tasks.length > 1 ? [short(meanAccuracy(merge)!)] : []),
  ]);
  const note =
    "lost: part of the direction of the weighted sum; cos: cosine of the merged delta to each adapter's";
  return `${table(header, rows)}\n\n${note}${tasks.length > 0 ? "; the last columns: accuracy" : ""}`;
}

/** `--methods svd,ties --methods lego` names three. */
function methodNames(flags: Flags): string[] {
  return flags.list("methods").flatMap((text) => text.split(",")).map((name) => name.trim()).filter((name) =>
    name
  );
}

function baseModelOf(variants: readonly Variant[], flags: Flags): string {
  const directory = flags.string("model") ?? variants[0]!.recipe.baseModel;
  if (directory !== undefined) return directory;
  throw new MergeError(
    "missing_flag",
    "--data needs the base model, but neither --model nor the recipe's base_model names it",
    "add --model DIR, the base model's folder",
    "--model",
  );
}

async function withAccuracy(
  merges: readonly ComparedMerge[],
  tasks: readonly Task[],
  directory: string,
  device: Device,
  terminal: Terminal,
): Promise<ScoredMerge[]> {
  const tokenizer = await openTokenizer(directory);
  using model = await openModel(device, directory);
  const setting = { device, model, tokenizer, tasks, maxNewTokens: undefined, terminal };
  const scored: ScoredMerge[] = [];
  for (const merge of merges) {
    terminal.note(`measuring ${merge.label}`);
    const scores = await scoreAdapter(setting, merge.output, merge.label);
    scored.push({
      ...merge,
      accuracy: Object.fromEntries(scores.map(({ task, accuracy }) => [task, accuracy])),
    });
  }
  return scored;
}

/** Refuses a report in the place of anything that the comparison reads. */
function guardInputs(report: string, recipeFile: string, recipe: Recipe, flags: Flags): void {
  checkOutputPath({ ...recipe, output: { ...recipe.output, path: report } }, recipeFile);
  refuseInputs(report, flags.list("data"));
}

/** Runs `work` with the folder that `--output` names, or with one that is removed afterwards. */
async function withDirectory<T>(
  output: string | undefined,
  work: (directory: string) => Promise<T>,
): Promise<T> {
  if (output !== undefined) {
    try {
      await mkdir(output);
    } catch (error) {
      if ((error as { code?: string }).code !== "EEXIST") throw error;
      throw new MergeError(
        "target_exists",
        `${output} exists already`,
        "name another folder with --output",
        output,
      );
    }
    return await work(output);
  }
  const directory = await mkdtemp(join(tmpdir(), "lora-loom-compare-"));
  try {
    return await work(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

export const compare: Command = {
  name: "compare",
  summary:
    "Merges the adapters of a recipe in several ways, or at several values, and puts the results side by side.",
  usage: "RECIPE",
  arity: [1, 1],
  flags: [
    {
      name: "methods",
      type: "list",
      value: "NAMES",
      help: "methods, separated by commas; by default the recipe's own",
    },
    {
      name: "sweep",
      type: "string",
      value: "KEY=FROM:TO:STEP",
      help: "give a value of the recipe several numbers in turn, such as adapters.0.weight=0.2:1.2:0.2",
    },
    {
      name: "data",
      type: "list",
      value: "FILE",
      help: 'also measure accuracy: rows {"prompt": …, "completion": …}, one a line',
    },
    { name: "limit", type: "string", value: "N", help: "use the first N rows of each file" },
    {
      name: "model",
      type: "string",
      value: "DIR",
      help: "the base model for --data, if not the recipe's base_model",
    },
    { name: "set", type: "list", value: "KEY=VALUE", help: "change a value of the recipe, for all merges" },
    { name: "output", type: "string", value: "DIR", help: "keep the merged adapters in this new folder" },
    {
      name: "report",
      type: "string",
      value: "FILE",
      help: "write the table and its plots as one HTML file; replaces an earlier report, nothing else",
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
      "deno task compare examples/quickstart/recipe.yaml --methods lego,svd,ties,tsv_m",
      "four methods on the adapters of the quick start",
    ],
    [
      "deno task compare examples/quickstart/recipe.yaml --methods svd --sweep adapters.0.weight=0.2:1.2:0.2 --report sweep.html",
      "six weights of the first adapter, with plots",
    ],
  ],
  async run({ args, flags }, terminal) {
    const sweepText = flags.string("sweep");
    const device = flags.string("device") as DeviceChoice | undefined;
    const variants = await loadVariants(
      args[0]!,
      methodNames(flags),
      sweepText === undefined ? undefined : parseSweep(sweepText),
      { set: flags.list("set"), ...(device === undefined ? {} : { device }) },
    );
    const output = flags.string("output");
    const report = flags.string("report");
    if (report !== undefined) {
      guardInputs(report, args[0]!, variants[0]!.recipe, flags);
      await checkReportFile(report, output);
    }
    const limit = wholeNumber("limit", flags.string("limit"));
    const tasks = await readTasks(flags.list("data"), limit);
    const baseModel = tasks.length > 0 ? baseModelOf(variants, flags) : undefined;
    await using opened = await openDevice({ device: variants[0]!.recipe.device });
    const merges = await withDirectory(output && resolve(output), async (directory) => {
      const compared = await compareMerges(variants, {
        device: opened,
        directory,
        signal: terminal.signal,
        onStep: (what, done, total) => terminal.status(`${what}: ${done} of ${total}`),
      });
      return baseModel === undefined
        ? compared
        : await withAccuracy(compared, tasks, baseModel, opened, terminal);
    });
    terminal.out(flags.boolean("json") ? JSON.stringify(jsonOf(merges, output)) : comparisonText(merges));
    return report === undefined ? 0 : await writeReport(report, merges);
  },
};

/** Writes the page; the table is out already, so a failure goes to standard error alone, and into the exit status. */
async function writeReport(path: string, merges: readonly ScoredMerge[]): Promise<number> {
  try {
    await writeFileAtomic(path, comparisonReport(merges));
    return 0;
  } catch (error) {
    return reportError(error, false);
  }
}

/** The object that `--json` prints; folders only where they are kept. */
function jsonOf(merges: readonly ScoredMerge[], kept: string | undefined) {
  return {
    rows: merges.map(({ output, ...merge }) => ({
      ...merge,
      ...(kept === undefined ? {} : { output }),
      mean_accuracy: meanAccuracy(merge as ScoredMerge) ?? null,
    })),
  };
}
