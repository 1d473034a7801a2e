import type { Adapter } from "@lora-loom/formats";

/** Whether a program loads an adapter as it is, and if not, why. */
export interface ServingVerdict {
  readonly ok: boolean;
  readonly reasons: readonly string[];
}

/** The largest rank that vLLM can be configured for. */
const VLLM_MAX_RANK = 512;

function verdict(reasons: readonly (string | false)[]): ServingVerdict {
  const found = reasons.filter((reason) => reason !== false);
  return { ok: found.length === 0, reasons: found };
}

function isUniform(values: Iterable<number>): boolean {
  return new Set(values).size <= 1;
}

/** Whether vLLM and llama.cpp (through its own converter) take an adapter without conversion by this project. */
export function servingVerdicts(adapter: Adapter): Readonly<Record<"vllm" | "llama_cpp", ServingVerdict>> {
  const modules = [...adapter.modules.values()];
  const config = adapter.config ?? {};
  const notPeft = adapter.format !== "peft" &&
    `it is in the layout ${adapter.format}; deno task convert makes PEFT of it`;
  const mixedRanks = !isUniform(modules.map(({ rank }) => rank)) &&
    "its modules have different ranks, but one rank is assumed for all";
  const mixedAlphas = !isUniform(modules.map(({ alpha }) => alpha)) &&
    "its modules have different alphas, but one alpha is assumed for all";
  const saved = Array.isArray(config.modules_to_save) && config.modules_to_save.length > 0 &&
    "it carries whole modules (modules_to_save)";
  const tooHigh = modules.some(({ rank }) => rank > VLLM_MAX_RANK) && `its rank exceeds ${VLLM_MAX_RANK}`;
  const rslora = config.use_rslora === true &&
    "it is rank-stabilised (use_rslora), which the converter does not fold into alpha";
  const isGguf = adapter.format === "gguf";
  return {
    vllm: verdict([notPeft, mixedRanks, mixedAlphas, saved, tooHigh]),
    llama_cpp: verdict(isGguf ? [mixedAlphas] : [notPeft, mixedAlphas, saved, rslora]),
  };
}
