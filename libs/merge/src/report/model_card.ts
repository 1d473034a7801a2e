import { stringify } from "yaml";
import { ENGINE_TITLES, ENGINES, servingRank } from "@lora-loom/formats";
import { METHODS } from "../methods/registry.ts";
import { type MergeRecord, recipeInFile } from "./record.ts";
import { triedSettings } from "./tried_settings.ts";

function percent(value: number): string {
  return `${(100 * value).toFixed(2)} %`;
}

/** A cell of a Markdown table: a bar would end it. */
function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("\n", " ");
}

/** How the Hugging Face Hub names a model; a card must not name a folder of this machine. */
const HUB_ID = /^[\w.-]+\/[\w.-]+$/;

function frontMatter({ baseModelName, recipe }: MergeRecord): string {
  return stringify({
    ...(HUB_ID.test(baseModelName ?? "") ? { base_model: baseModelName } : {}),
    ...(recipe.output.format === "peft" ? { library_name: "peft" } : {}),
    tags: ["lora", "merge", "lora-loom", recipe.method],
  });
}

function qualityRows({ recipe, quality }: MergeRecord): string {
  return recipe.adapters.map(({ name, weight }) =>
    `| ${cell(name)} | ${weight} | ${quality.cosine_to_sources[name]!.toFixed(4)} |`
  ).join("\n");
}

function lossSentence({ quality, rank }: MergeRecord): string {
  const best = quality.best_loss === null
    ? ""
    : `; the best that any adapter of rank ${rank} can do is ${percent(quality.best_loss)}`;
  return `Measured against the weighted sum of the adapters, ${
    percent(quality.loss)
  } of the direction is lost ` +
    `(√(1 − cos²))${best}.`;
}

/** How well it does what the adapters do, by the best figure there is. */
function qualitySentence(record: MergeRecord): string {
  const { agreement } = record.quality;
  if (!agreement) return lossSentence(record);
  const tasks = Object.entries(agreement.merged.tasks).map(([name, share]) => `${name} ${percent(share)}`);
  return `On prompts that no calibration saw, it answers exactly as the adapter of the task in ${
    percent(agreement.merged.mean)
  } ` +
    `of cases (${tasks.join(", ")}); the sum of the deltas does in ${
      percent(agreement.sum.mean)
    }, their mean in ${percent(agreement.mean.mean)}.`;
}

/** Which settings were chosen, where the recipe leaves a choice. */
function choiceSentence({ quality: { tried } }: MergeRecord): string {
  if (!tried) return "";
  const settings = triedSettings(tried);
  const { text } = settings.find(({ kept }) => kept)!;
  const shares = settings.map(({ text, agreement }) => `${text} ${percent(agreement)}`);
  return `\nSettings were chosen by agreement on those prompts, without labels: kept was ${text} (${
    shares.join("; ")
  }).\n`;
}

function loadingSection({ recipe, rank }: MergeRecord): string {
  const { format } = recipe.output;
  if (format !== "peft") return `The weights are in the layout ${format}.`;
  return `\`\`\`python
from peft import PeftModel
model = PeftModel.from_pretrained(base_model, "path/to/this/folder")
\`\`\`

The scale is 1 (\`lora_alpha\` equals \`r\`) and all modules have one rank, so that vLLM (with \`--max-lora-rank ${
    servingRank(rank)
  }\` or
more) and llama.cpp's converter take it too.`;
}

/** Where the adapter loads as it is, and why not elsewhere. */
function servingRows({ serving }: MergeRecord): string {
  const rows = ENGINES.map((engine) => {
    const { ok, reasons, notes } = serving[engine];
    return `| ${ENGINE_TITLES[engine]} | ${ok ? "yes" : "no"} | ${cell([...reasons, ...notes].join("; "))} |`;
  });
  return ["| program | loads it | |", "| --- | --- | --- |", ...rows].join("\n");
}

/** Whether anything was trained, and on what. */
function trainingSentence({ refinement, device }: MergeRecord): string {
  if (!refinement || refinement.failure || refinement.kept_step === 0) {
    return `It was computed on ${device.name}, without any training.`;
  }
  const sequences = Object.values(refinement.sequences).reduce((sum, count) => sum + count, 0);
  return `It was computed on ${device.name}, and then refined: ${refinement.kept_step} steps of training without labels. All modules ` +
    `were fitted together to what each adapter makes of its own prompts (${sequences} sequences, answered by the adapters themselves): ` +
    `hidden states after every layer, and a little of the answers' distributions.`;
}

/** The text of the model card, `README.md`. */
export function modelCard(record: MergeRecord): string {
  const { recipe, rank, modules, warnings, versions } = record;
  const method = METHODS.get(recipe.method)!;
  const title = recipe.adapters.map(({ name }) => name).join(" + ");
  const notes = warnings.map(({ message }) => `- ${message}`);
  return `---
${frontMatter(record)}---

# ${title}

One LoRA adapter, merged from ${recipe.adapters.length} with ${method.title} by LoRA Loom ${
    versions["lora-loom"]
  }: rank ${rank}, ${modules.length} modules.
${trainingSentence(record)}

${method.summary}

- Formula: ${method.formula}
- Source: ${method.source}

| adapter | weight | cosine of the merged delta to its delta |
| --- | ---: | ---: |
${qualityRows(record)}

${
    qualitySentence(record)
  } A cosine says how alike two deltas are, not how well a task is solved: test before use.
${choiceSentence(record)}${notes.length > 0 ? `\nNotes on the inputs:\n\n${notes.join("\n")}\n` : ""}
## How to load it

${loadingSection(record)}

${servingRows(record)}

## How it was made

\`\`\`yaml
${stringify(recipeInFile(recipe, recipe.output.path)).trimEnd()}
\`\`\`

\`loom.json\` holds this recipe with the SHA-256 of every input and figures for every module; \`report.html\` shows them.
`;
}
