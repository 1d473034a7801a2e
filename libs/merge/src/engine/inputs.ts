import { existsSync } from "node:fs";
import { join, relative } from "node:path";
import {
  type Adapter,
  alignAdapters,
  type BaseModel,
  inNamesOf,
  openAdapter,
  readBaseModel,
  refuseInputs,
} from "@lora-loom/formats";
import type { InputRecord } from "../report/record.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { hashFiles } from "./hash_files.ts";

function present(...paths: readonly (string | undefined)[]): string[] {
  return paths.filter((path) => path !== undefined);
}

/**
 * Refuses an output that would replace something the recipe reads or the recipe's own file, with `--force` too.
 *
 * @param recipeFile where the recipe was read, if from a file
 * @throws {FormatError} `output_is_input`
 */
export function checkOutputPath({ adapters, baseModel, output }: Recipe, recipeFile?: string): void {
  refuseInputs(output.path, [
    ...adapters.flatMap(({ path, calibration, capture }) => [path, ...present(calibration, capture)]),
    ...present(baseModel, recipeFile),
  ]);
}

/** What the recipe's base model says that some layouts leave out; undefined where there is no model to read. */
export async function baseModelOf({ baseModel }: Recipe): Promise<BaseModel | undefined> {
  if (baseModel === undefined || !existsSync(join(baseModel, "config.json"))) return undefined;
  return await readBaseModel(baseModel);
}

/**
 * Opens all adapters of a recipe, with common names for what differs in name only, in the manner of the layout that is
 * written; closes what it opened when one fails.
 */
export async function openAdapters(recipe: Recipe): Promise<Adapter[]> {
  const adapters: Adapter[] = [];
  try {
    const base = await baseModelOf(recipe);
    for (const { path, drop, expand } of recipe.adapters) {
      adapters.push(await openAdapter(path, { base, drop, expand }));
    }
    const named = [];
    for (const adapter of adapters) named.push(await inNamesOf(recipe.output.format, adapter));
    return await alignAdapters(named);
  } catch (error) {
    closeAdapters(adapters);
    throw error;
  }
}

export function closeAdapters(adapters: readonly Adapter[]): void {
  for (const adapter of adapters) adapter.close();
}

/** SHA-256 of every file that the adapters consist of, and of their calibration files or captures. */
export async function hashInputs(
  recipe: Recipe,
  adapters: readonly Adapter[],
  signal?: AbortSignal,
): Promise<InputRecord[]> {
  const paths = recipe.adapters.map(({ calibration, capture }, index) => [
    ...adapters[index]!.files,
    ...present(calibration, capture),
  ]);
  const hashes = await hashFiles(paths.flat(), signal);
  return recipe.adapters.map(({ name, path }, index) => ({
    name,
    path: relative(recipe.output.path, path),
    files: paths[index]!.map((file) => ({
      path: relative(recipe.output.path, file),
      sha256: hashes.get(file)!,
    })),
  }));
}
