import { existsSync, realpathSync } from "node:fs";
import { dirname, relative, resolve, sep } from "node:path";
import { type Adapter, openAdapter } from "@lora-loom/formats";
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

/**
 * Refuses an output that would replace something the recipe reads, with `--force` too.
 *
 * @throws {MergeError} `output_is_input`
 */
export function checkOutputPath(recipe: Recipe): void {
  const output = physicalPath(recipe.output.path);
  const inputs = [
    ...recipe.adapters.flatMap(({ path, calibration }) =>
      calibration === undefined ? [path] : [path, calibration]
    ),
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

/** Opens all adapters of a recipe; closes what it opened when one fails. */
export async function openAdapters(recipe: Recipe): Promise<Adapter[]> {
  const adapters: Adapter[] = [];
  try {
    for (const { path } of recipe.adapters) adapters.push(await openAdapter(path));
    return adapters;
  } catch (error) {
    closeAdapters(adapters);
    throw error;
  }
}

export function closeAdapters(adapters: readonly Adapter[]): void {
  for (const adapter of adapters) adapter.close();
}

/** SHA-256 of every file that the adapters consist of, and of their calibration files. */
export async function hashInputs(
  recipe: Recipe,
  adapters: readonly Adapter[],
  signal?: AbortSignal,
): Promise<InputRecord[]> {
  const paths = recipe.adapters.map(({ calibration }, index) => [
    ...adapters[index]!.files,
    ...(calibration === undefined ? [] : [calibration]),
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
