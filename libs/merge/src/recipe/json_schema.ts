import { OUTPUT_FORMATS } from "@lora-loom/formats";
import type { Method } from "../methods/method.ts";
import { parameterJsonSchema } from "../methods/parameters.ts";
import { REFINE_PARAMETERS } from "../refine/parameters.ts";
import { DEVICE_CHOICES, OUTPUT_DTYPES, WEIGHT_CHOICES } from "./recipe.ts";
import { LARGEST_WEIGHT } from "./schema.ts";

type Schema = Record<string, unknown>;

const object = (properties: Record<string, Schema>, required: readonly string[] = []): Schema => ({
  type: "object",
  properties,
  required,
  additionalProperties: false,
});

/** The parameters of one method as JSON Schema. */
export function parametersJsonSchema(method: Method): Schema {
  return object(Object.fromEntries(method.parameters.map((spec) => [spec.name, parameterJsonSchema(spec)])));
}

/** What `refine` takes as JSON Schema. */
function refineJsonSchema(): Schema {
  const properties = REFINE_PARAMETERS.map((spec) => [spec.name, parameterJsonSchema(spec)]);
  return { ...object(Object.fromEntries(properties)), description: "refine the merge on unlabeled prompts" };
}

/** The whole recipe as JSON Schema (draft 2020-12); the method decides which parameters are known. */
export function recipeJsonSchema(methods: Iterable<Method>): Schema {
  const all = [...methods];
  const adapter = object({
    path: { type: "string", description: "a PEFT folder or a single adapter file" },
    name: { type: "string", description: "how reports call it" },
    weight: { type: "number", minimum: -LARGEST_WEIGHT, maximum: LARGEST_WEIGHT, default: 1 },
    calibration: { type: "string", description: 'JSON Lines file with rows {"prompt": …} or {"text": …}' },
    capture: {
      type: "string",
      description:
        ".npz or .safetensors file with the inputs of each module or their Gram matrices, instead of calibration",
    },
    drop: {
      type: "array",
      items: { type: "string" },
      description:
        "what may be left out: kinds of tensors (dora, diff, …), modules or tensors, * for any characters",
    },
    expand: { type: "boolean", description: "expand LoHa and LoKr into plain LoRA" },
  }, ["path"]);
  const output = object({
    path: { type: "string" },
    format: { enum: [...OUTPUT_FORMATS], default: "peft" },
    dtype: { enum: [...OUTPUT_DTYPES], default: "float32" },
  }, ["path"]);
  const patterns = { type: "array", items: { type: "string" }, default: [] };
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "LoRA Loom recipe",
    ...object({
      method: { enum: all.map(({ name }) => name) },
      base_model: { type: "string", description: "a Hugging Face model folder" },
      adapters: { type: "array", items: adapter, minItems: 1 },
      parameters: { type: "object" },
      refine: refineJsonSchema(),
      include: patterns,
      exclude: patterns,
      output,
      memory: {
        ...object({
          weights: { enum: [...WEIGHT_CHOICES], default: "auto" },
          device_gib: { type: "number", exclusiveMinimum: 0 },
          host_gib: { type: "number", exclusiveMinimum: 0 },
        }),
        description: "what a merge that runs the base model may take of memory",
      },
      seed: { type: "integer", minimum: 0, default: 42 },
      device: { enum: [...DEVICE_CHOICES], default: "auto" },
    }, ["method", "adapters", "output"]),
    allOf: all.map((method) => ({
      if: { properties: { method: { const: method.name } } },
      then: { properties: { parameters: parametersJsonSchema(method) } },
    })),
  };
}
