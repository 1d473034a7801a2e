import { didYouMean, nearest, type Recipe, recipeFromObject } from "@lora-loom/merge";
import * as v from "valibot";
import { ServerError } from "../errors.ts";
import type { AdapterPlace } from "../work/inspection.ts";
import type { MergeRequest } from "./merge.ts";

const MAX_NAME = 120;
const name = v.pipe(v.string(), v.trim(), v.minLength(1), v.maxLength(MAX_NAME));
const id = v.pipe(v.string(), v.regex(/^[0-9a-f]{8,64}$/, "expected the id of something that was uploaded"));
const patterns = v.pipe(v.array(v.pipe(v.string(), v.maxLength(500))), v.maxLength(200));

/** To `v.record` a list is a record too. */
const map = v.custom<object>(
  (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  "expected an object",
);

const adapterSchema = v.strictObject({
  id,
  name: v.exactOptional(name),
  weight: v.exactOptional(v.pipe(v.number(), v.finite())),
  calibration: v.exactOptional(id),
});

/** The form of a request; what the values mean is for the recipe to decide. */
const requestSchema = v.strictObject({
  name: v.exactOptional(name),
  method: v.pipe(v.string(), v.maxLength(100)),
  base_model: v.exactOptional(v.pipe(v.string(), v.minLength(1), v.maxLength(500))),
  adapters: v.pipe(v.array(adapterSchema), v.minLength(1, "expected at least one adapter")),
  parameters: v.exactOptional(
    v.pipe(map, v.record(v.string(), v.union([v.number(), v.string(), v.boolean()]))),
  ),
  refine: v.exactOptional(
    v.pipe(map, v.record(v.string(), v.union([v.number(), v.string(), v.boolean()]))),
  ),
  memory: v.exactOptional(v.pipe(map, v.record(v.string(), v.union([v.number(), v.string()])))),
  include: v.exactOptional(patterns),
  exclude: v.exactOptional(patterns),
  format: v.exactOptional(v.string()),
  dtype: v.exactOptional(v.string()),
  seed: v.exactOptional(v.number()),
  device: v.exactOptional(v.string()),
});

function invalid(issue: v.BaseIssue<unknown>): ServerError {
  const path = (issue.path ?? []).map(({ key }) => String(key));
  const where = path.join(".");
  if (issue.type === "strict_object" && issue.expected === "never") {
    const known = Object.keys(path[0] === "adapters" ? adapterSchema.entries : requestSchema.entries);
    const key = path.at(-1)!.slice(0, 100);
    const fix = key === "path"
      ? "upload the adapter and write its id"
      : `write ${nearest(key, known)}, or remove it`;
    return new ServerError(
      422,
      "unknown_key",
      `unknown key ${JSON.stringify(key)}; ${didYouMean(key, known)}`,
      fix,
      where,
    );
  }
  return new ServerError(
    422,
    "invalid_request",
    issue.message,
    where ? `correct ${where}` : "send a JSON object",
    where,
  );
}

/**
 * Checks the form of a request for a merge.
 *
 * @throws {ServerError} `unknown_key`, `invalid_request`, `too_many_inputs`
 */
export function parseRequest(value: unknown, maxAdapters: number): MergeRequest {
  const parsed = v.safeParse(requestSchema, value);
  if (!parsed.success) {
    const unknown = parsed.issues.find(({ type, expected }) =>
      type === "strict_object" && expected === "never"
    );
    throw invalid(unknown ?? parsed.issues[0]);
  }
  const count = parsed.output.adapters.length;
  if (count <= maxAdapters) return parsed.output;
  const message = `the recipe names ${count} adapters, at most ${maxAdapters} are taken`;
  throw new ServerError(422, "too_many_inputs", message, "merge fewer at once", "adapters");
}

/** Where the server keeps what a request names. */
export interface RequestPlaces {
  adapter(id: string): AdapterPlace & { readonly name: string };
  calibration(id: string): string;
  model(name: string): Promise<string>;
  /** The folder that the merge shall write. */
  readonly output: string;
}

/**
 * The recipe that a request stands for, on the server's own paths: the engine sees what it would see on the command line.
 *
 * @throws {ServerError} `not_found`, `unknown_model`, …; {MergeError} as `resolveRecipe`
 */
export async function recipeOf(request: MergeRequest, places: RequestPlaces): Promise<Recipe> {
  const { name: _name, adapters, format, dtype, base_model, ...rest } = request;
  const value = {
    ...rest,
    ...(base_model === undefined ? {} : { base_model: await places.model(base_model) }),
    adapters: adapters.map(({ id, name, weight, calibration }) => {
      const { name: ownName, ...place } = places.adapter(id);
      return {
        ...place,
        name: name ?? ownName,
        ...(weight === undefined ? {} : { weight }),
        ...(calibration === undefined ? {} : { calibration: places.calibration(calibration) }),
      };
    }),
    output: {
      path: places.output,
      ...(format === undefined ? {} : { format }),
      ...(dtype === undefined ? {} : { dtype }),
    },
  };
  const recipe = recipeFromObject(value, "/", "the request");
  return { ...recipe, adapters: withUniqueNames(recipe.adapters) };
}

/** Reports tell adapters apart by their names. */
function withUniqueNames(adapters: Recipe["adapters"]): Recipe["adapters"] {
  const taken = new Set<string>();
  return adapters.map((adapter) => {
    let name = adapter.name;
    for (let count = 2; taken.has(name); count++) name = `${adapter.name}-${count}`;
    taken.add(name);
    return { ...adapter, name };
  });
}
