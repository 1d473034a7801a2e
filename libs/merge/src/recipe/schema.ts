/** The shape of a recipe, as it is written. */
import { OUTPUT_FORMATS } from "@lora-loom/formats";
import * as v from "valibot";
import type { KeyPath } from "./document.ts";
import { DEVICE_CHOICES, OUTPUT_DTYPES, WEIGHT_CHOICES } from "./recipe.ts";

const text = (what: string) =>
  v.pipe(v.string(`expected ${what}`), v.minLength(1, `expected ${what}, found an empty string`));
/** Larger weights are mistakes; products of much larger ones leave the range of float32. */
export const LARGEST_WEIGHT = 1e6;
const weightRange = `expected a weight from -${LARGEST_WEIGHT} to ${LARGEST_WEIGHT}`;
const weight = v.pipe(
  v.number("expected a number"),
  v.finite("expected a finite number"),
  v.minValue(-LARGEST_WEIGHT, weightRange),
  v.maxValue(LARGEST_WEIGHT, weightRange),
);
const globs = v.array(text("a pattern such as *.q_proj"), 'expected a list of patterns such as ["*.q_proj"]');

/** Not `v.record`, to which a list is a record too. */
const parameterMap = v.custom<Record<string, unknown>>(
  (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  "expected a map",
);

const adapterSchema = v.strictObject({
  path: text("the path of an adapter"),
  name: v.optional(text("a name")),
  weight: v.optional(weight, 1),
  calibration: v.optional(text("the path of a JSON Lines file")),
  capture: v.optional(text("the path of a .npz or .safetensors file")),
  drop: v.optional(v.array(text("a kind, module or tensor"), "expected a list such as [dora]")),
  expand: v.optional(v.boolean("expected true or false")),
}, "expected a map with a path");

const outputSchema = v.strictObject({
  path: text("the path of a folder"),
  format: v.optional(v.picklist(OUTPUT_FORMATS, `expected ${OUTPUT_FORMATS.join(", ")}`), "peft"),
  dtype: v.optional(v.picklist(OUTPUT_DTYPES, `expected ${OUTPUT_DTYPES.join(", ")}`), "float32"),
}, "expected a map with a path");

const gibibytes = v.pipe(
  v.number("expected a number of GiB"),
  v.gtValue(0, "expected a number of GiB above 0"),
);

const memorySchema = v.strictObject({
  weights: v.optional(v.picklist(WEIGHT_CHOICES, `expected ${WEIGHT_CHOICES.join(", ")}`), "auto"),
  device_gib: v.optional(gibibytes),
  host_gib: v.optional(gibibytes),
}, "expected a map such as {device_gib: 14}");

const recipeEntries = {
  method: text("the name of a method"),
  base_model: v.optional(text("the path of a model folder")),
  adapters: v.pipe(
    v.array(adapterSchema, "expected a list of adapters"),
    v.minLength(1, "expected at least one adapter, found none"),
  ),
  parameters: v.optional(v.nullable(parameterMap)),
  refine: v.optional(v.nullable(parameterMap)),
  include: v.optional(globs, []),
  exclude: v.optional(globs, []),
  output: outputSchema,
  memory: v.optional(memorySchema, {}),
  seed: v.optional(
    v.pipe(
      v.number("expected a whole number ≥ 0"),
      v.safeInteger("expected a whole number ≥ 0"),
      v.minValue(0, "expected a whole number ≥ 0"),
    ),
    42,
  ),
  device: v.optional(v.picklist(DEVICE_CHOICES, `expected ${DEVICE_CHOICES.join(", ")}`), "auto"),
};
/** All of a recipe but the values of parameters, which the method declares. */
export const recipeSchema = v.strictObject(recipeEntries, "expected a map with method, adapters and output");

/** A recipe with the defaults of its own keys filled in. */
export type RecipeInput = v.InferOutput<typeof recipeSchema>;

/** Keys that a map of the recipe may have. */
export function knownKeys(parent: KeyPath): readonly string[] {
  if (parent[0] === "adapters") return Object.keys(adapterSchema.entries);
  if (parent[0] === "output") return Object.keys(outputSchema.entries);
  if (parent[0] === "memory") return Object.keys(memorySchema.entries);
  return Object.keys(recipeEntries);
}
