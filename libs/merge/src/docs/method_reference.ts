import type { Method } from "../methods/method.ts";
import { defaultText, type ParameterSpec, rangeText } from "../methods/parameters.ts";

/** A cell of a Markdown table. */
function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("\n", " ");
}

function needsText({ needs, captures }: Method): string {
  const parts = [
    ...(needs.baseModel ? ["the base model"] : []),
    ...(needs.calibration ? ["calibration text"] : []),
  ];
  const text = parts.length === 0 ? "nothing but the adapters" : parts.join(" and ");
  return captures ? `${text}, or [captures](../captures.md)` : text;
}

/** GitHub's address of a heading. */
function anchor(name: string): string {
  return name.toLowerCase().replace(/[^\w -]/g, "").replaceAll(" ", "-");
}

/** `lego+` and `lego` would have one address: a plus is spelt out. */
function heading(name: string): string {
  return name.replace("+", " plus");
}

function parameterRow(spec: ParameterSpec): string {
  const sentence = spec.help.replace(/\.$/, "");
  const help = spec.formula ? `${sentence}: ${spec.formula}` : sentence;
  return `| \`${spec.name}\` | ${cell(rangeText(spec))} | ${cell(defaultText(spec))} | ${cell(help)} |`;
}

function section(method: Method): string {
  const table = method.parameters.length === 0 ? "It has no parameters." : [
    "| parameter | values | default | what it does |",
    "| --- | --- | --- | --- |",
    ...method.parameters.map(parameterRow),
  ].join("\n");
  return [
    `## ${heading(method.name)}`,
    `\`method: ${method.name}\`: ${method.title}. ${method.summary}`,
    `- Formula: ${method.formula}\n- Source: ${method.source}\n- Needs ${needsText(method)}`,
    table,
    ...captureNote(method),
  ].join("\n\n");
}

function captureNote({ captures }: Method): string[] {
  if (!captures) return [];
  const names = captures.parameters.map((spec) => `\`${spec.name}\` (${defaultText(spec)})`);
  return [`With captures it takes ${names.join(", ")}.`];
}

/** The reference of all methods and their parameters in Markdown, from their declarations. */
export function methodReference(methods: Iterable<Method>): string {
  const all = [...methods];
  const rows = all.map((method) =>
    `| [\`${method.name}\`](#${anchor(heading(method.name))}) | ${cell(method.title)} | ${
      needsText(method)
    } |`
  );
  return [
    "# Methods and their parameters",
    "This page is made from the methods' own declarations; `deno run -A libs/merge/scripts/write_method_reference.ts` writes it anew. " +
    "Parameters stand in a recipe under `parameters`, or on the command line as `--set parameters.NAME=VALUE`. " +
    "ΔW_t = s_t B_t A_t is an adapter's delta at one module, r_t its rank, w_t its weight in the recipe, ΔW' the result.",
    ["| method | what it is | needs |", "| --- | --- | --- |", ...rows].join("\n"),
    ...all.map(section),
  ].join("\n\n") + "\n";
}
