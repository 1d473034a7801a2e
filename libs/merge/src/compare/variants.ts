import { MergeError } from "../errors.ts";
import { didYouMean, nearest } from "../recipe/nearest.ts";
import { loadRecipe, type RecipeChanges } from "../recipe/load.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { METHODS } from "../methods/registry.ts";

/** One of the merges that are compared. */
export interface Variant {
  /** The method, and the swept value where there is one. */
  readonly label: string;
  readonly recipe: Recipe;
  /** The swept value. */
  readonly value?: number;
}

/** A key of the recipe and the numbers that it takes in turn. */
export interface Sweep {
  readonly key: string;
  readonly values: readonly number[];
}

/** More than this is a typing error. */
const MOST_VALUES = 200;

/**
 * Reads `adapters.0.weight=0.2:1.2:0.2`: first value, last value, step.
 *
 * @throws {MergeError} `sweep_syntax`
 */
export function parseSweep(text: string): Sweep {
  const [key, range, ...rest] = text.split("=");
  const numbers = range?.split(":").map((part) => part.trim() === "" ? NaN : Number(part)) ?? [];
  const [from, to, step] = numbers as [number, number, number];
  const steps = Math.floor((to - from) / step + 1e-9);
  const isValid = rest.length === 0 && key?.trim() && numbers.length === 3 &&
    numbers.every(Number.isFinite) &&
    steps >= 0 && steps < MOST_VALUES;
  if (!isValid) {
    throw new MergeError(
      "sweep_syntax",
      `cannot read ${JSON.stringify(text)} as KEY=FROM:TO:STEP with at most ${MOST_VALUES} values`,
      "write it like --sweep adapters.0.weight=0.2:1.2:0.2",
      `--sweep ${text}`,
    );
  }
  // Twelve digits: 0.2 + 2 · 0.2 shall be 0.6.
  const values = Array.from({ length: steps + 1 }, (_, i) => Number((from + i * step).toPrecision(12)));
  return { key: key!.trim(), values };
}

function checkMethods(methods: readonly string[]): void {
  const known = [...METHODS.keys()];
  for (const method of methods) {
    if (METHODS.has(method)) continue;
    throw new MergeError(
      "unknown_method",
      `unknown method ${JSON.stringify(method)}; ${didYouMean(method, known)}`,
      `write ${nearest(method, known)}`,
      "--methods",
    );
  }
}

/**
 * Every method with every value of the sweep, from one recipe file. A method takes those of the recipe's parameters that
 * it has.
 *
 * @param methods empty: the recipe's own
 * @throws {MergeError} `unknown_method` or what {@linkcode loadRecipe} throws
 */
export async function loadVariants(
  path: string,
  methods: readonly string[],
  sweep: Sweep | undefined,
  changes: RecipeChanges = {},
): Promise<Variant[]> {
  checkMethods(methods);
  const variants: Variant[] = [];
  for (const method of methods.length > 0 ? methods : [undefined]) {
    for (const value of sweep?.values ?? [undefined]) {
      const set = value === undefined ? [] : [`${sweep!.key}=${value}`];
      const recipe = await loadRecipe(path, {
        ...changes,
        set: [...changes.set ?? [], ...set],
        ...(method === undefined ? {} : { method }),
      });
      const label = [recipe.method, ...set].join(" ");
      variants.push({ label, recipe, ...(value === undefined ? {} : { value }) });
    }
  }
  return variants;
}
