import * as v from "valibot";
import { MergeError } from "../errors.ts";
import type { Method } from "../methods/method.ts";
import { parameterSchema, type ParameterSpec } from "../methods/parameters.ts";
import { REFINE_PARAMETERS } from "../refine/parameters.ts";
import type { RecipeDocument } from "./document.ts";
import { unknownKey, valueText } from "./problems.ts";
import type { ParameterValue } from "./recipe.ts";

/** Checks parameters of a method, or of `refine`, against their declarations and fills in fixed defaults. */
export function resolveParameters(
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
          valueText(value)
        }`,
        `choose another ${spec.name}: ${spec.help}`,
        document.locate([key, spec.name]),
      );
    }
    parameters[spec.name] = result.output;
  }
  return parameters;
}

/** The same for those of `refine`. */
export function resolveRefinement(
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
