import {
  ENGINE_TITLES,
  ENGINES,
  type OpenOptions,
  readBaseModel,
  type ServingVerdict,
} from "@lora-loom/formats";
import {
  type CaptureInspection,
  inspectAdapter,
  inspectCapture,
  type Inspection,
  isCapturePath,
  tryInspectCapture,
} from "@lora-loom/merge";
import type { Command } from "../command.ts";
import { short, table } from "../text.ts";

function verdictText(name: string, { ok, reasons, notes }: ServingVerdict): string {
  if (!ok) return `  ${name} does not take it: ${reasons.join("; ")}`;
  return [`  ${name} takes it as it is`, ...notes].join("; ");
}

function inspectionText(inspection: Inspection): string {
  const { modules, problems, serving } = inspection;
  const rows = modules.map((module) => [
    module.name,
    `${module.out_features} × ${module.in_features}`,
    module.rank,
    short(module.scale),
    short(module.norm),
    short(module.singular_values[0] ?? 0),
    short(module.effective_rank),
    module.rank_99,
  ]);
  return [
    `${inspection.path}`,
    `  format       ${inspection.format}, ${inspection.modules[0]?.dtype ?? "empty"}`,
    `  base model   ${inspection.base_model ?? "not recorded"}`,
    `  modules      ${modules.length}, ${inspection.parameters} parameters`,
    `  ranks        ${inspection.ranks.join(", ")}`,
    `  scales       ${inspection.scales.map(short).join(", ")}`,
    `  norm of ΔW   ${short(inspection.norm)}`,
    ...ENGINES.map((engine) => verdictText(ENGINE_TITLES[engine], serving[engine])),
    ...(problems.length === 0
      ? ["  no problems found"]
      : ["problems:", ...problems.map(({ code, message }) => `  ${code}: ${message}`)]),
    "",
    table(["module", "shape", "rank", "scale", "norm", "largest σ", "eff. rank", "99 % rank"], rows),
  ].join("\n");
}

function captureText({ path, bytes, modules }: CaptureInspection): string {
  const rows = modules.map(({ name, kind, rows, features, dtype }) => [
    name,
    kind === "gram" ? "XᵀX" : "X",
    rows ?? "–",
    features,
    dtype,
  ]);
  const grams = modules.filter(({ kind }) => kind === "gram").length;
  return [
    path,
    "  format       capture: what modules of a base model read, for method: iteris",
    `  modules      ${modules.length}, ${grams} of them as Gram matrices`,
    `  size         ${(bytes / 2 ** 20).toFixed(1)} MiB`,
    "",
    table(["module", "form", "rows", "features", "type"], rows),
  ].join("\n");
}

/** An adapter, or a capture where it is none. */
async function inspectPath(path: string, options: OpenOptions): Promise<Inspection | CaptureInspection> {
  if (isCapturePath(path)) return await inspectCapture(path);
  try {
    return await inspectAdapter(path, options);
  } catch (error) {
    const capture = await tryInspectCapture(path);
    if (capture) return capture;
    throw error;
  }
}

function isCapture(inspection: Inspection | CaptureInspection): inspection is CaptureInspection {
  return inspection.format === "capture";
}

export const inspect: Command = {
  name: "inspect",
  summary:
    "Says what an adapter is: format, modules, ranks, scales, norms, spectrum, problems; or what a capture holds.",
  usage: "PATH",
  arity: [1, 1],
  flags: [
    {
      name: "base",
      type: "string",
      value: "DIR",
      help: "the base model's folder, which GGUF adapters of Llama need",
    },
    { name: "drop", type: "list", value: "NAME", help: "leave out a kind of tensors, a module or a tensor" },
    { name: "expand", type: "boolean", help: "expand LoHa and LoKr into plain LoRA" },
  ],
  examples: [
    ["deno task inspect examples/tiny-llama/adapters/language", "a PEFT folder"],
    [
      "deno task inspect examples/tiny-llama/adapters/language/adapter_model.safetensors --json",
      "a single file, every singular value",
    ],
  ],
  async run({ args, flags }, terminal) {
    const directory = flags.string("base");
    const base = directory === undefined ? undefined : await readBaseModel(directory);
    const options = { base, drop: flags.list("drop"), expand: flags.boolean("expand") };
    const inspection = await inspectPath(args[0]!, options);
    if (flags.boolean("json")) terminal.out(JSON.stringify(inspection));
    else terminal.out(isCapture(inspection) ? captureText(inspection) : inspectionText(inspection));
    return 0;
  },
};
