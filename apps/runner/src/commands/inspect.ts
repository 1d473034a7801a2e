import { inspectAdapter, type Inspection } from "@lora-loom/merge";
import type { Command } from "../command.ts";
import { short, table } from "../text.ts";

function verdictText(name: string, { ok, reasons }: Inspection["serving"]["vllm"]): string {
  return ok ? `  ${name} takes it as it is` : `  ${name} does not take it: ${reasons.join("; ")}`;
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
    verdictText("vLLM", serving.vllm) +
    (serving.vllm.ok ? `, with --max-lora-rank ${inspection.max_lora_rank} or more` : ""),
    verdictText("llama.cpp", serving.llama_cpp),
    ...(problems.length === 0
      ? ["  no problems found"]
      : ["problems:", ...problems.map(({ code, message }) => `  ${code}: ${message}`)]),
    "",
    table(["module", "shape", "rank", "scale", "norm", "largest σ", "eff. rank", "99 % rank"], rows),
  ].join("\n");
}

export const inspect: Command = {
  name: "inspect",
  summary: "Says what an adapter is: format, modules, ranks, scales, norms, spectrum, problems.",
  usage: "PATH",
  arity: [1, 1],
  flags: [],
  examples: [
    ["deno task inspect examples/tiny-llama/adapters/language", "a PEFT folder"],
    [
      "deno task inspect examples/tiny-llama/adapters/language/adapter_model.safetensors --json",
      "a single file, every singular value",
    ],
  ],
  async run({ args, flags }, terminal) {
    const inspection = await inspectAdapter(args[0]!);
    terminal.out(flags.boolean("json") ? JSON.stringify(inspection) : inspectionText(inspection));
    return 0;
  },
};
