import { MergeError } from "../errors.ts";
import type { RecipeAdapter } from "../recipe/recipe.ts";

/**
 * Refuses weights that are no way to count a task.
 *
 * @throws {MergeError} `weight_not_positive`
 */
export function requirePositiveWeight({ name, weight, path }: RecipeAdapter): void {
  if (weight > 0) return;
  throw new MergeError(
    "weight_not_positive",
    `${name} has the weight ${weight}; here a weight says how much a task counts, so it must be above 0`,
    "leave the adapter out, or give it a weight above 0",
    path,
  );
}
