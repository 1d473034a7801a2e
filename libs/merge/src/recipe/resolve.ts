import { basename, dirname, isAbsolute, resolve } from "node:path";
import * as v from "valibot";
import { MergeError } from "../errors.ts";
import type { Method } from "../methods/method.ts";
import { checkNeeds, runsOnCaptures } from "./check_needs.ts";
import type { RecipeDocument } from "./document.ts";
import { didYouMean, nearest } from "./nearest.ts";
import { issueError } from "./problems.ts";
import type { MemoryChoice, Recipe } from "./recipe.ts";
import { resolveParameters, resolveRefinement } from "./resolve_parameters.ts";
import { type RecipeInput, recipeSchema } from "./schema.ts";

/** What {@linkcode resolveRecipe} needs besides the recipe itself. */
export interface ResolveContext {
  /** Relative paths start here: the folder of the recipe's file. */
  readonly directory: string;
  readonly methods: ReadonlyMap<string, Method>;
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
