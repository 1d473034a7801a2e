import { readFile } from "node:fs/promises";
import { dirname, relative, resolve } from "node:path";
import { MergeError } from "../errors.ts";
import { METHODS } from "../methods/registry.ts";
import { parseRecipeText, type RecipeDocument } from "./document.ts";
import { applyOverride, parseOverride } from "./overrides.ts";
import type { DeviceChoice, Recipe } from "./recipe.ts";
import { valueAt } from "./problems.ts";
import { resolveRecipe } from "./resolve.ts";

/** Changes to a recipe that come from the command line. */
export interface RecipeChanges {
  /** `key.path=value`, applied in order. */
  readonly set?: readonly string[];
  /** Instead of the recipe's `output.path`; relative to the current folder. */
  readonly output?: string;
  readonly device?: DeviceChoice;
  /** Another method instead of the recipe's; parameters that it does not have are left out. */
  readonly method?: string;
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    const code = (error as { code?: string }).code;
    if (code === "EISDIR") {
      throw new MergeError(
        "recipe_not_found",
        "this is a folder, expected a recipe file",
        `name the file, for example ${path}/recipe.yaml`,
        path,
      );
    }
    if (code !== "ENOENT" && code !== "ENOTDIR") throw error;
    throw new MergeError(
      "recipe_not_found",
      "there is no such recipe file",
      "check the path; examples/quickstart/recipe.yaml is one to start from",
      path,
    );
  }
}

/** The recipe with another method and those of its parameters that this method has. */
function withMethod(value: unknown, method: string): unknown {
  if (typeof value !== "object" || value === null) return value;
  const { parameters } = value as { parameters?: unknown };
  const known = METHODS.get(method)?.parameters.map(({ name }) => name);
  if (!known || typeof parameters !== "object" || parameters === null) return { ...value, method };
  const kept = Object.entries(parameters).filter(([name]) => known.includes(name));
  return { ...value, method, parameters: Object.fromEntries(kept) };
}

/** A document with the overrides applied, which says of a changed value that it came from the command line. */
function withChanges(document: RecipeDocument, changes: RecipeChanges): RecipeDocument {
  const overrides = (changes.set ?? []).map(parseOverride);
  if (changes.output !== undefined) {
    overrides.push({
      path: ["output", "path"],
      value: resolve(changes.output),
      text: `output.path=${changes.output}`,
    });
  }
  if (changes.device !== undefined) {
    overrides.push({ path: ["device"], value: changes.device, text: `device=${changes.device}` });
  }
  const changed = overrides.reduce(applyOverride, document.value);
  const value = changes.method === undefined ? changed : withMethod(changed, changes.method);
  const touches = (path: readonly unknown[], key: readonly unknown[]) =>
    path.every((part, index) => part === key[index]);
  return {
    value,
    locate(path) {
      if (path.length === 0) return document.locate(path);
      // What the file lacks came with an override that set something in it.
      const isInFile = valueAt(document.value, path) !== undefined;
      const override = overrides.findLast((candidate) => touches(candidate.path, path)) ??
        (isInFile ? undefined : overrides.findLast((candidate) => touches(path, candidate.path)));
      return override ? `--set ${override.text}` : document.locate(path);
    },
  };
}

/**
 * Reads a recipe file (YAML or JSON), applies changes from the command line and resolves it. Paths in it, changed ones
 * included, are relative to the file; only {@linkcode RecipeChanges.output} is relative to the current folder.
 *
 * @throws {MergeError} `recipe_not_found`, `recipe_syntax` or what {@linkcode resolveRecipe} throws
 */
export async function loadRecipe(path: string, changes: RecipeChanges = {}): Promise<Recipe> {
  const file = resolve(path);
  const document = parseRecipeText(await readText(file), relative(".", file) || file);
  return resolveRecipe(withChanges(document, changes), { directory: dirname(file), methods: METHODS });
}

/**
 * Resolves a recipe that is already an object, for callers without a file.
 *
 * @param directory relative paths in it start here
 * @throws {MergeError} as {@linkcode resolveRecipe}
 */
export function recipeFromObject(value: unknown, directory: string, name = "the recipe"): Recipe {
  const document: RecipeDocument = {
    value,
    locate: (keys) => keys.length > 0 ? `${name} (${keys.join(".")})` : name,
  };
  return resolveRecipe(document, { directory, methods: METHODS });
}
