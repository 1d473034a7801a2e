import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { DeviceInfo } from "@lora-loom/tensor";
import { hashFiles } from "../engine/hash_files.ts";
import type { Plan } from "../plan/plan.ts";
import type { Recipe } from "../recipe/recipe.ts";
import type { InputRecord } from "../report/record.ts";
import { VERSIONS } from "../versions.ts";
import type { Identity } from "./journal_file.ts";

/** Changes whenever what is kept of a step, or what a step is, changes. */
const FORMAT = 1;

/** What a merge works on. */
export interface Work {
  readonly recipe: Recipe;
  readonly plan: Plan;
  readonly inputs: readonly InputRecord[];
  readonly device: DeviceInfo;
  /** What else decides, by name. */
  readonly deciding: Readonly<Record<string, unknown>>;
}

/** Everything that decides about the bytes of a merge, by the name that a user knows it by. */
export async function identityOf({ recipe, plan, inputs, device, deciding }: Work): Promise<Identity> {
  const { method, seed, include, exclude, output, parameters } = recipe;
  return {
    ...texts("", { method, seed, include, exclude, "output.format": output.format, rank: plan.rank }),
    ...texts("parameters.", parameters),
    ...texts("", deciding),
    ...adapterParts(recipe),
    ...inputParts(inputs),
    ...await baseModelParts(recipe.baseModel),
    ...texts("the version of ", VERSIONS),
    ...texts("the device's ", { ...device }),
    "the journal's format": String(FORMAT),
  };
}

function texts(prefix: string, values: Readonly<Record<string, unknown>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [`${prefix}${name}`, JSON.stringify(value) ?? "none"]),
  );
}

/** All that the recipe says of its adapters but where they lie: what is in the files counts. */
function adapterParts({ adapters }: Recipe): Record<string, string> {
  return Object.assign(
    {},
    ...adapters.map(({ path: _path, calibration: _calibration, ...rest }, index) =>
      texts(`adapters.${index}.`, { ...rest })
    ),
  );
}

function inputParts(inputs: readonly InputRecord[]): Record<string, string> {
  return Object.fromEntries(
    inputs.flatMap(({ files }, index) =>
      files.map(({ path, sha256 }) => [`adapters.${index}, ${basename(path)}`, sha256])
    ),
  );
}

/** The base model's files: what configures it by content, its weights, which are too large for that, by size and date. */
async function baseModelParts(folder: string | undefined): Promise<Record<string, string>> {
  if (folder === undefined) return {};
  const parts: Record<string, string> = {};
  for (const name of (await readdir(folder)).sort()) {
    const path = join(folder, name);
    const status = await stat(path);
    if (!status.isFile()) continue;
    parts[`base_model, ${name}`] = name.endsWith(".json")
      ? (await hashFiles([path])).get(path)!
      : `${status.size} bytes of ${status.mtime.toISOString()}`;
  }
  return parts;
}
