import type { Adapter } from "../../adapter.ts";
import { FormatError } from "../../errors.ts";
import { toPlain } from "../../json/parse.ts";
import { DropList } from "../drop.ts";
import type { Layout, OpenOptions } from "../layout.ts";
import type { AdapterSource } from "../source.ts";
import { readPeftConfig } from "./config.ts";
import { PREFIX } from "./keys.ts";
import { checkConfigKeys } from "./refused_keys.ts";
import { checkTargets } from "./targets.ts";
import { readModules } from "./tensors.ts";

/** Hugging Face PEFT: `adapter_config.json` beside `adapter_model.safetensors` or its shards. */
export const peftLayout: Layout = {
  id: "peft",
  title: "PEFT",
  weightFiles: ["adapter_model"],
  detect: detectPeft,
  read: readPeft,
};

function detectPeft({ weights, config }: AdapterSource): string | undefined {
  for (const key of weights.tensors.keys()) if (key.startsWith(PREFIX)) return `the key ${key}`;
  return config?.has("peft_type") ? "peft_type in adapter_config.json" : undefined;
}

// Async, so that a refusal rejects like every other failure of opening.
// deno-lint-ignore require-await
async function readPeft(source: AdapterSource, options: OpenOptions): Promise<Adapter> {
  const { path, name, weights, configPath } = source;
  if (!source.config) throw configMissing(source);
  const drop = new DropList(options.drop);
  const config = readPeftConfig(source.config, configPath);
  const keyWarnings = checkConfigKeys(source.config, configPath, drop);
  const { modules, warnings } = readModules(weights, config, drop);
  const targetWarnings = checkTargets(config.targetModules, modules.keys(), configPath);
  const close = () => weights.close();
  return {
    name,
    path,
    format: peftLayout.id,
    modules,
    baseModel: config.baseModel,
    taskType: config.taskType,
    fanInFanOut: config.fanInFanOut,
    config: toPlain(source.config) as Record<string, unknown>,
    metadata: weights.metadata,
    warnings: [...keyWarnings, ...warnings, ...targetWarnings],
    files: [configPath, ...weights.files],
    close,
    [Symbol.dispose]: close,
  };
}

function configMissing({ path, configPath }: AdapterSource): FormatError {
  return new FormatError(
    "config_missing",
    `${path} has the keys of PEFT but no adapter_config.json: without it the scale is unknown`,
    "Put the adapter's adapter_config.json beside adapter_model.safetensors.",
    configPath,
  );
}
