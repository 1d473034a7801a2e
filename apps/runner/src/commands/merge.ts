import process from "node:process";
import {
  DEVICE_CHOICES,
  type DeviceChoice,
  loadRecipe,
  type MemoryNeeds,
  type MergeSummary,
  type ProgressEvent,
  runMerge,
  triedSettings,
} from "@lora-loom/merge";
import type { Command, Flags, Terminal } from "../command.ts";
import { mergeOnServer, type RemoteSummary } from "../remote/merge_on_server.ts";
import { bytesText, secondsText, short } from "../text.ts";

/** The token for `--server`: the flag, else the environment, which other users of the machine cannot see. */
function tokenOf(flags: Flags): string | undefined {
  return flags.string("token") ?? process.env.LORA_LOOM_TOKEN;
}

/** Seconds between progress lines where a moving status line cannot be shown. */
const LINE_INTERVAL = 5;

function progressPrinter(terminal: Terminal): (event: ProgressEvent) => void {
  let nextLine = LINE_INTERVAL;
  return (event) => {
    if (event.type === "start") {
      terminal.note(`merging ${event.modules} modules at rank ${event.rank} on ${event.device}`);
      for (const warning of event.warnings) terminal.note(`warning: ${warning.message} (${warning.where})`);
      return;
    }
    if (event.type === "note") {
      const hint = event.code === "resumed" ? "; --fresh starts from the beginning" : "";
      terminal.note(`note: ${event.message} (${event.where}${hint})`);
      return;
    }
    if (event.type === "needs") {
      terminal.note(needsText(event.needs, event.weights));
      return;
    }
    if (event.type === "finish") {
      terminal.status("writing reports");
      return;
    }
    const what = event.type === "stage" ? event.stage : "module";
    const left = event.remaining === null ? "" : `, about ${secondsText(event.remaining)} left`;
    const line = `${what} ${event.done} of ${event.total}, ${secondsText(event.elapsed)}${left}`;
    if (terminal.isInteractive) terminal.status(line);
    else if (event.elapsed >= nextLine) {
      terminal.note(line);
      nextLine = event.elapsed + LINE_INTERVAL;
    }
  };
}

/** What a merge is going to need, for people. */
function needsText(needs: MemoryNeeds, weights: string): string {
  const scratch = needs.scratch_bytes > 0 ? `, ${bytesText(needs.scratch_bytes)} of temporary files` : "";
  return `needs about ${bytesText(needs.device_bytes)} in device buffers and ${
    bytesText(needs.host_bytes)
  } resident${scratch}; ` +
    `weights are ${weights}, ${bytesText(needs.read_bytes)} of them to read`;
}

function memoryText({ peak_rss_bytes, peak_gpu_bytes }: MergeSummary | RemoteSummary): string {
  if (peak_rss_bytes === null || peak_gpu_bytes === null) return "not known";
  const resident = `${bytesText(peak_rss_bytes)} resident at most`;
  return peak_gpu_bytes > 0 ? `${resident}, ${bytesText(peak_gpu_bytes)} in device buffers` : resident;
}

/** What a method that runs the base model measured; nothing for the others. */
function measuredLines({ output_error, agreement, tried }: MergeSummary["quality"]): string[] {
  const compared = (merged: number, sum: number, mean: number) =>
    `${short(merged)} (sum of the deltas ${short(sum)}, their mean ${short(mean)})`;
  const lines: string[] = [];
  if (output_error) {
    lines.push(
      `  output error             ${compared(output_error.merged, output_error.sum, output_error.mean)}`,
    );
  }
  if (agreement) {
    const { merged, sum, mean } = agreement;
    const tasks = Object.entries(merged.tasks).map(([name, share]) => `${name} ${short(share)}`);
    lines.push(`  agreement                ${compared(merged.mean, sum.mean, mean.mean)}`);
    lines.push(`  agreement by task        ${tasks.join(", ")}`);
  }
  if (tried) {
    const settings = triedSettings(tried).map(({ text, agreement, difference, kept }) =>
      `${text} ${short(agreement)}${difference && ` (${difference})`}${kept ? " (kept)" : ""}`
    );
    lines.push(`  agreement by setting     ${settings.join("; ")}`);
  }
  return lines;
}

/** What an interrupted run had done already; nothing where there was none. */
function resumedLines({ resumed }: MergeSummary | RemoteSummary): string[] {
  return resumed ? [`  resumed   after ${resumed.steps} steps of an interrupted run`] : [];
}

/** What the refinement did; nothing where there was none. */
function refinementLines({ refinement, quality }: MergeSummary | RemoteSummary): string[] {
  if (!refinement) return [];
  const { steps_done, kept_step, first_loss, last_loss, agreement_before } = refinement;
  const kept = kept_step === 0 ? "the merge before was kept" : `step ${kept_step} was kept`;
  const loss = first_loss === null || last_loss === null
    ? ""
    : `, loss ${short(first_loss)} to ${short(last_loss)}`;
  const agreement = agreement_before === null || !quality.agreement
    ? ""
    : `, agreement ${short(agreement_before)} to ${short(quality.agreement.merged.mean)}`;
  return [`  refinement               ${steps_done} steps without labels, ${kept}${loss}${agreement}`];
}

/** What a merge did, for people. */
function summaryText(summary: MergeSummary | RemoteSummary): string {
  const { seconds, quality } = summary;
  const parts = `read ${secondsText(seconds.read)}, compute ${secondsText(seconds.compute)}, write ${
    secondsText(seconds.write)
  }`;
  const cosines = Object.entries(quality.cosine_to_sources).map(([name, cosine]) =>
    `${name} ${short(cosine)}`
  );
  return [
    `${summary.output}`,
    `  method    ${summary.method}, rank ${summary.rank}, ${summary.modules} modules of ${summary.adapters.length} adapters`,
    `  device    ${summary.device.name}${
      summary.device.backend === "cpu" ? "" : `, ${summary.device.backend}`
    }`,
    `  time      ${secondsText(seconds.total)} (${parts})`,
    `  memory    ${memoryText(summary)}`,
    ...resumedLines(summary),
    ...measuredLines(quality),
    ...refinementLines(summary),
    `  cosine to each adapter   ${cosines.join(", ")}`,
    `  cosine to their sum      ${short(quality.cosine_to_sum)}`,
    // What a method measured on real inputs says more than the distance from a sum that it does not aim at.
    ...(quality.best_loss === null || quality.output_error ? [] : [
      `  lost of the sum          ${short(quality.loss)} (best possible at this rank: ${
        short(quality.best_loss)
      })`,
    ]),
  ].join("\n");
}

export const merge: Command = {
  name: "merge",
  summary: "Merges the adapters that a recipe names into one adapter.",
  usage: "RECIPE",
  arity: [1, 1],
  flags: [
    {
      name: "set",
      type: "list",
      value: "KEY=VALUE",
      help: "change a value of the recipe, such as parameters.rank=8",
    },
    { name: "output", type: "string", value: "DIR", help: "write there instead of the recipe's output.path" },
    {
      name: "device",
      type: "string",
      value: "DEVICE",
      choices: DEVICE_CHOICES,
      help: `where to compute: ${DEVICE_CHOICES.join(", ")}`,
    },
    { name: "force", type: "boolean", help: "replace an earlier result at the output" },
    {
      name: "fresh",
      type: "boolean",
      help: "start from the beginning, whatever an interrupted run of this merge left",
    },
    {
      name: "server",
      type: "string",
      value: "URL",
      help: "merge on this server instead, and bring the result back",
    },
    {
      name: "token",
      type: "string",
      value: "TOKEN",
      help: "the server's token, where it asks for one (or set LORA_LOOM_TOKEN)",
    },
  ],
  examples: [
    ["deno task merge examples/quickstart/recipe.yaml", "merge the four adapters of the quick start"],
    [
      "deno task merge examples/quickstart/recipe.yaml --set parameters.rank=8 --output merged/k8",
      "the same with half the rank",
    ],
    [
      "deno task merge examples/quickstart/recipe.yaml --set adapters.0.weight=0.5 --force",
      "weigh the first adapter less, replacing the last result",
    ],
    [
      "deno task merge examples/quickstart/recipe.yaml --device cpu --json > merge.json",
      "without a GPU, for a program to read",
    ],
    [
      "deno task merge examples/quickstart/recipe.yaml --server http://localhost:8420",
      "on a server's GPU (deno task serve)",
    ],
  ],
  async run({ args, flags }, terminal) {
    const output = flags.string("output");
    const device = flags.string("device") as DeviceChoice | undefined;
    const recipe = await loadRecipe(args[0]!, {
      set: flags.list("set"),
      ...(output === undefined ? {} : { output }),
      ...(device === undefined ? {} : { device }),
    });
    const options = {
      force: flags.boolean("force"),
      recipeFile: args[0]!,
      fresh: flags.boolean("fresh"),
      signal: terminal.signal,
      onProgress: progressPrinter(terminal),
    };
    const server = flags.string("server");
    const summary = server === undefined
      ? await runMerge(recipe, options)
      : await mergeOnServer(recipe, { ...options, server, token: tokenOf(flags), note: terminal.note });
    terminal.out(flags.boolean("json") ? JSON.stringify(summary) : summaryText(summary));
    return 0;
  },
};
