import { existsSync, realpathSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import {
  type Adapter,
  alignAdapters,
  type BaseModel,
  inNamesOf,
  openAdapter,
  readBaseModel,
} from "@lora-loom/formats";
import { MergeError } from "../errors.ts";
import type { InputRecord } from "../report/record.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { hashFiles } from "./hash_files.ts";

/** The path with every link on the way resolved, as far as it exists. */
function physicalPath(path: string): string {
  const absolute = resolve(path);
  if (existsSync(absolute)) return realpathSync(absolute);
  const parent = dirname(absolute);
  return parent === absolute ? absolute : resolve(physicalPath(parent), relative(parent, absolute));
}

function isInside(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder + sep);
}

function present(...paths: readonly (string | undefined)[]): string[] {
  return paths.filter((path) => path !== undefined);
}

/**
 * Refuses an output that would replace something the recipe reads, with `--force` too.
 *
 * @throws {MergeError} `output_is_input`
 */
export function checkOutputPath(recipe: Recipe): void {
  const output = physicalPath(recipe.output.path);
  const inputs = [
    ...recipe.adapters.flatMap(({ path, calibration, capture }) => [path, ...present(calibration, capture)]),
    ...(recipe.baseModel === undefined ? [] : [recipe.baseModel]),
  ];
  for (const input of inputs) {
    const path = physicalPath(input);
    if (!isInside(path, output)) continue;
    throw new MergeError(
      "output_is_input",
      `the output ${recipe.output.path} is or contains the input ${input}, which would be lost`,
      "choose another folder with --output",
      recipe.output.path,
    );
  }
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
