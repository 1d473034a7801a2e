import type { Adapter } from "../../adapter.ts";
import { FormatError } from "../../errors.ts";
import { DropList } from "../drop.ts";
import { fileAdapter } from "../factors/adapter.ts";
import type { Layout, OpenOptions } from "../layout.ts";
import type { AdapterSource } from "../source.ts";
import { readPeftConfig } from "./config.ts";
import { PREFIX } from "./keys.ts";
import { checkConfigKeys } from "./refused_keys.ts";
import { checkTargets } from "./targets.ts";
import { readModules } from "./tensors.ts";
import { createWriter, WEIGHTS } from "./write.ts";

/** Hugging Face PEFT: `adapter_config.json` beside `adapter_model.safetensors` or its shards. */
export const peftLayout: Layout = {
  id: "peft",
  title: "PEFT",
  container: "safetensors",
  weightFiles: ["adapter_model"],
  ownsKey: (key) => key.startsWith(PREFIX),
  configSign: (config) => config.has("peft_type") ? "peft_type" : undefined,
  read: readPeft,
  writing: { weightFile: WEIGHTS, isSingleFile: false, create: createWriter },
};

// Async, so that a refusal rejects like every other failure of opening.
// deno-lint-ignore require-await
async function readPeft(source: AdapterSource, options: OpenOptions): Promise<Adapter> {
  const { weights, configPath } = source;
  if (!source.config) throw configMissing(source);
  const drop = new DropList(options.drop);
  const config = readPeftConfig(source.config, configPath);
  const keyWarnings = checkConfigKeys(source.config, configPath, drop);
  const { modules, warnings } = readModules(weights, config, drop);
  const targetWarnings = checkTargets(config.targetModules, modules.keys(), configPath);
  return fileAdapter(
    source,
    peftLayout.id,
    modules,
    [...keyWarnings, ...warnings, ...targetWarnings],
    config,
  );
}

function configMissing({ path, configPath }: AdapterSource): FormatError {
  return new FormatError(
    "config_missing",
    `${path} has the keys of PEFT but no adapter_config.json: without it the scale is unknown`,
    "Put the adapter's adapter_config.json beside adapter_model.safetensors.",
    configPath,
  );
}
