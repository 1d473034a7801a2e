import { basename, dirname, isAbsolute, resolve } from "node:path";
import { OUTPUT_FORMATS } from "@lora-loom/formats";
import * as v from "valibot";
import { MergeError } from "../errors.ts";
import type { Method } from "../methods/method.ts";
import { parameterSchema, type ParameterSpec } from "../methods/parameters.ts";
import { REFINE_PARAMETERS } from "../refine/parameters.ts";
import { didYouMean, nearest } from "./nearest.ts";
import { keyName, type KeyPath, type RecipeDocument } from "./document.ts";
import {
  DEVICE_CHOICES,
  type MemoryChoice,
  OUTPUT_DTYPES,
  type ParameterValue,
  type Recipe,
  WEIGHT_CHOICES,
} from "./recipe.ts";

/** What {@linkcode resolveRecipe} needs besides the recipe itself. */
export interface ResolveContext {
  /** Relative paths start here: the folder of the recipe's file. */
  readonly directory: string;
  readonly methods: ReadonlyMap<string, Method>;
}

const text = (what: string) =>
  v.pipe(v.string(`expected ${what}`), v.minLength(1, `expected ${what}, found an empty string`));
const finiteNumber = v.pipe(v.number("expected a number"), v.finite("expected a finite number"));
const globs = v.array(text("a pattern such as *.q_proj"), 'expected a list of patterns such as ["*.q_proj"]');

/** Not `v.record`, to which a list is a record too. */
const parameterMap = v.custom<Record<string, unknown>>(
  (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  "expected a map",
);

const adapterSchema = v.strictObject({
  path: text("the path of an adapter"),
  name: v.optional(text("a name")),
  weight: v.optional(finiteNumber, 1),
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
const recipeSchema = v.strictObject(recipeEntries, "expected a map with method, adapters and output");

/** Keys that a map of the recipe may have. */
function knownKeys(parent: KeyPath): readonly string[] {
  if (parent[0] === "adapters") return Object.keys(adapterSchema.entries);
  if (parent[0] === "output") return Object.keys(outputSchema.entries);
  if (parent[0] === "memory") return Object.keys(memorySchema.entries);
  return Object.keys(recipeEntries);
}

function show(value: unknown): string {
  return value === undefined ? "nothing" : JSON.stringify(value) ?? String(value);
}

function valueAt(root: unknown, path: KeyPath): unknown {
  return path.reduce<unknown>(
    (value, key) => (value as Record<string | number, unknown> | undefined)?.[key],
    root,
  );
}

function unknownKey(path: KeyPath, known: readonly string[], document: RecipeDocument): MergeError {
  const key = String(path.at(-1));
  const parent = path.length > 1 ? ` in ${keyName(path.slice(0, -1))}` : "";
  const candidate = nearest(key, known);
  return new MergeError(
    "unknown_key",
    `unknown key ${JSON.stringify(key)}${parent}; ${didYouMean(key, known)}`,
    candidate ? `write ${candidate} instead of ${key}, or remove it` : `remove ${key}`,
    document.locate(path),
  );
}

function issueError(issue: v.BaseIssue<unknown>, document: RecipeDocument): MergeError {
  const path = (issue.path ?? []).map(({ key }) => key as string | number);
  const found = valueAt(document.value, path);
  if (issue.type === "strict_object" && issue.expected === "never") {
    return unknownKey(path, knownKeys(path.slice(0, -1)), document);
  }
  if (found === undefined && path.length > 0) {
    const parent = path.slice(0, -1);
    return new MergeError(
      "missing_key",
      `${keyName(path)} is missing`,
      `add ${String(path.at(-1))}: … to ${keyName(parent)}`,
      document.locate(parent),
    );
  }
  return new MergeError(
    "invalid_value",
    `${issue.message}, found ${show(found)}`,
    `correct ${keyName(path)}`,
    document.locate(path),
  );
}

function findMethod(name: string, context: ResolveContext, document: RecipeDocument): Method {
  const method = context.methods.get(name);
  if (method) return method;
  const known = [...context.methods.keys()];
  throw new MergeError(
    "unknown_method",
    `unknown method ${JSON.stringify(name)}; ${didYouMean(name, known)}`,
    `write method: ${nearest(name, known)}`,
    document.locate(["method"]),
  );
}

/** Checks parameters of a method, or of `refine`, against their declarations and fills in fixed defaults. */
function resolveParameters(
  method: Pick<Method, "name" | "parameters">,
  specs: readonly ParameterSpec[],
  given: Readonly<Record<string, unknown>>,
  document: RecipeDocument,
  key = "parameters",
): Record<string, ParameterValue> {
  const names = method.parameters.map(({ name }) => name);
  const usable = specs.map(({ name }) => name);
  for (const name of Object.keys(given)) {
    if (!names.includes(name)) throw unknownKey([key, name], names, document);
    if (!usable.includes(name)) throw parameterNeedsModel(method, name, usable, document);
  }
  const parameters: Record<string, ParameterValue> = {};
  for (const spec of specs) {
    const value = given[spec.name] ?? spec.default;
    if (value === undefined) continue;
    const result = v.safeParse(parameterSchema(spec), value);
    if (!result.success) {
      throw new MergeError(
        "parameter_range",
        `${method.name} takes ${result.issues[0].message.replace(/^expected /, "")} as ${spec.name}, found ${
          show(value)
        }`,
        `choose another ${spec.name}: ${spec.help}`,
        document.locate([key, spec.name]),
      );
    }
    parameters[spec.name] = result.output;
  }
  return parameters;
}

function resolveRefinement(
  given: Readonly<Record<string, unknown>>,
  document: RecipeDocument,
): Record<string, ParameterValue> {
  const refine = { name: "refine", parameters: REFINE_PARAMETERS };
  return resolveParameters(refine, refine.parameters, given, document, "refine");
}

function parameterNeedsModel(
  { name }: Pick<Method, "name">,
  key: string,
  usable: readonly string[],
  document: RecipeDocument,
): MergeError {
  return new MergeError(
    "parameter_needs_model",
    `${key} needs the base model to run, and captures hold only what its modules once read; with captures ${name} takes ${
      usable.join(", ")
    }`,
    `remove ${key}, or give base_model and calibration: instead of capture:`,
    document.locate(["parameters", key]),
  );
}

/** Makes names unique: `language`, `language-2`, … in the recipe's order. */
function uniqueNames(names: readonly string[]): string[] {
  const taken = new Set<string>();
  return names.map((name) => {
    let candidate = name;
    for (let count = 2; taken.has(candidate); count++) candidate = `${name}-${count}`;
    taken.add(candidate);
    return candidate;
  });
}

function adapterName(path: string): string {
  const base = basename(path);
  // A file inside a PEFT folder is named by the folder: every one of them is called the same.
  const isGeneric = /^(adapter_model|adapters|pytorch_lora_weights)\.\w+$/.test(base);
  return isGeneric ? basename(dirname(path)) : base.replace(/\.(safetensors|gguf|npz)$/i, "");
}

type RecipeInput = v.InferOutput<typeof recipeSchema>;

/** Whether captures stand for the base model and the calibration text that the method would need. */
function runsOnCaptures({ needs }: Method, { adapters }: RecipeInput): boolean {
  return needs.calibration && adapters.some(({ capture }) => capture !== undefined);
}

function checkNeeds(method: Method, recipe: RecipeInput, document: RecipeDocument): void {
  if (runsOnCaptures(method, recipe)) checkCaptures(method, recipe, document);
  else {
    if (method.needs.baseModel) requireBaseModel(method.name, recipe, document);
    if (method.needs.calibration) requireCalibration(method.name, recipe, document);
  }
  if (!recipe.refine) return;
  requireBaseModel("refine", recipe, document);
  requireCalibration("refine", recipe, document);
}

/** @param who method or stage that runs it */
function requireBaseModel(who: string, recipe: RecipeInput, document: RecipeDocument): void {
  if (recipe.base_model !== undefined) return;
  throw new MergeError(
    "missing_key",
    `${who} runs the base model, but the recipe names none`,
    "add base_model: path/to/the/model/folder",
    document.locate([]),
  );
}

function requireCalibration(who: string, { adapters }: RecipeInput, document: RecipeDocument): void {
  adapters.forEach((adapter, index) => {
    if (adapter.calibration !== undefined) return;
    throw new MergeError(
      "missing_key",
      `${who} needs calibration prompts for every adapter, but ${adapter.path} has none`,
      'add calibration: path/to/prompts.jsonl, with a row such as {"prompt": "…"} per example',
      document.locate(["adapters", index]),
    );
  });
}

function checkCaptures(method: Method, { adapters }: RecipeInput, document: RecipeDocument): void {
  adapters.forEach(({ path, capture, calibration }, index) => {
    const place = (key: string) => document.locate(["adapters", index, key]);
    if (capture !== undefined && !method.captures) {
      throw new MergeError(
        "captures_unsupported",
        `${method.name} runs the base model on text, and ${capture} holds only what its modules once read`,
        "write method: iteris, or give base_model and calibration: instead of capture:",
        place("capture"),
      );
    }
    if (capture !== undefined && calibration !== undefined) {
      throw new MergeError(
        "capture_and_calibration",
        `${path} has both capture: and calibration:, one was expected`,
        "keep capture: to merge without running the model, or calibration: to run it",
        place("capture"),
      );
    }
    if (capture === undefined) {
      throw new MergeError(
        "captures_incomplete",
        `some adapters have capture:, but ${path} has not`,
        "add capture: path/to/its/capture.npz, or give base_model and calibration: to all adapters",
        document.locate(["adapters", index]),
      );
    }
  });
}

function resolveMemory({ weights, device_gib, host_gib }: RecipeInput["memory"]): MemoryChoice {
  return {
    weights,
    ...(device_gib === undefined ? {} : { deviceGib: device_gib }),
    ...(host_gib === undefined ? {} : { hostGib: host_gib }),
  };
}

/**
 * Turns a parsed recipe into the one that a merge runs on: every key checked, defaults filled in, paths made absolute.
 *
 * @throws {MergeError} `unknown_key`, `missing_key`, `invalid_value`, `unknown_method` or `parameter_range`, each naming
 * the place in the file
 */
export function resolveRecipe(document: RecipeDocument, context: ResolveContext): Recipe {
  const parsed = v.safeParse(recipeSchema, document.value);
  if (!parsed.success) {
    // A misspelt key is also a missing one: the misspelling is what helps.
    const unknown = parsed.issues.find((issue) =>
      issue.type === "strict_object" && issue.expected === "never"
    );
    throw issueError(unknown ?? parsed.issues[0], document);
  }
  const input = parsed.output;
  const method = findMethod(input.method, context, document);
  checkNeeds(method, input, document);
  const specs = runsOnCaptures(method, input) ? method.captures!.parameters : method.parameters;
  const absolute = (path: string) => isAbsolute(path) ? path : resolve(context.directory, path);
  const names = uniqueNames(input.adapters.map(({ name, path }) => name ?? adapterName(absolute(path))));
  return {
    method: method.name,
    ...(input.base_model === undefined ? {} : { baseModel: absolute(input.base_model) }),
    adapters: input.adapters.map(({ path, weight, calibration, capture, drop, expand }, index) => ({
      path: absolute(path),
      name: names[index]!,
      weight,
      ...(calibration === undefined ? {} : { calibration: absolute(calibration) }),
      ...(capture === undefined ? {} : { capture: absolute(capture) }),
      ...(drop === undefined ? {} : { drop }),
      ...(expand === undefined ? {} : { expand }),
    })),
    parameters: resolveParameters(method, specs, input.parameters ?? {}, document),
    ...(input.refine ? { refine: resolveRefinement(input.refine, document) } : {}),
    include: input.include,
    exclude: input.exclude,
    output: { ...input.output, path: absolute(input.output.path) },
    memory: resolveMemory(input.memory),
    seed: input.seed,
    device: input.device,
  };
}
