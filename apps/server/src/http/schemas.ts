import { OUTPUT_FORMATS } from "@lora-loom/formats";
import { DEVICE_CHOICES, METHODS, OUTPUT_DTYPES } from "@lora-loom/merge";

/** JSON Schema, as OpenAPI 3.1 uses it. */
export type Schema = { readonly [key: string]: unknown };

const string: Schema = { type: "string" };
const number: Schema = { type: "number" };
const integer: Schema = { type: "integer", minimum: 0 };
const time: Schema = { type: "string", format: "date-time" };
const any: Schema = {};

const list = (items: Schema): Schema => ({ type: "array", items });
const nullable = (schema: Schema): Schema => ({ anyOf: [schema, { type: "null" }] });
const mapOf = (values: Schema): Schema => ({ type: "object", additionalProperties: values });

/** An object with exactly these properties, all of them required but those whose name ends with `?`. */
function object(properties: Readonly<Record<string, Schema>>): Schema {
  const entries = Object.entries(properties);
  return {
    type: "object",
    properties: Object.fromEntries(entries.map(([name, schema]) => [name.replace("?", ""), schema])),
    required: entries.filter(([name]) => !name.endsWith("?")).map(([name]) => name),
    additionalProperties: false,
  };
}

/** A reference to one of {@linkcode SCHEMAS}. */
export const ref = (name: keyof typeof SCHEMAS): Schema => ({ $ref: `#/components/schemas/${name}` });
const refer = (name: string): Schema => ({ $ref: `#/components/schemas/${name}` });

const warning = object({ code: string, message: string, where: string });

const adapter: Readonly<Record<string, Schema>> = {
  id: {
    type: "string",
    description: "made from the content and how it is read: the same files have the same id",
  },
  name: string,
  created: time,
  bytes: integer,
  files: list(refer("File")),
  format: { type: "string", description: "the layout that was recognised, such as peft" },
  base_model: nullable(string),
  task_type: nullable(string),
  dtype: string,
  ranks: list(integer),
  parameters: { ...integer, description: "numbers in all factors" },
  modules: { ...integer, description: "how many modules it adapts" },
  warnings: list(warning),
  "drop?": { ...list(string), description: "what its upload agreed to lose" },
  "expand?": { type: "boolean", description: "whether its LoHa or LoKr is expanded" },
};

/** The shapes of everything that the API speaks of. */
export const SCHEMAS = {
  Error: object({
    error: object({
      code: { type: "string", description: "a stable name, such as unknown_key" },
      message: { type: "string", description: "what was found and what was expected" },
      fix: { type: "string", description: "what to do about it" },
      where: { type: "string", description: "the field, file or module concerned" },
    }),
  }),
  File: object({ name: string, bytes: integer, sha256: string }),
  Health: object({
    status: { enum: ["ok"] },
    version: string,
    device: nullable(object({ name: string, backend: string, class: string })),
    device_error: nullable(object({ code: string, message: string, fix: string, where: string })),
    merges: object({ running: integer, queued: integer }),
    limits: mapOf(number),
  }),
  Parameter: object({
    name: string,
    help: string,
    formula: nullable(string),
    type: { enum: ["integer", "number", "choice", "boolean"] },
    range: { type: "string", description: "what it accepts, in words" },
    default: { type: "string", description: "what it is unless given, in words" },
    schema: any,
  }),
  Method: object({
    name: { enum: [...METHODS.keys()] },
    title: string,
    summary: string,
    formula: string,
    source: string,
    needs: object({ base_model: { type: "boolean" }, calibration: { type: "boolean" } }),
    parameters: list(refer("Parameter")),
    schema: { type: "object", description: "JSON Schema of the whole parameters object" },
  }),
  Adapter: object(adapter),
  AdapterDetail: object({
    ...adapter,
    inspection: {
      ...nullable({ type: "object" }),
      description: "norms, spectra and problems; null until they are known",
    },
    problem: nullable(object({ code: string, message: string, fix: string, where: string })),
  }),
  Calibration: object({ id: string, name: string, created: time, bytes: integer, rows: integer }),
  Model: object({ name: string }),
  MergeRequest: object({
    "name?": { type: "string", description: "how the result is called" },
    method: { enum: [...METHODS.keys()] },
    "base_model?": { type: "string", description: "one of GET /api/models; for methods that run the model" },
    adapters: {
      ...list(object({
        id: string,
        "name?": string,
        "weight?": { ...number, default: 1 },
        "calibration?": { type: "string", description: "id of a calibration text" },
      })),
      minItems: 1,
    },
    "parameters?": { type: "object", description: "see GET /api/methods" },
    "refine?": {
      type: "object",
      description: 'refine the merge on the calibration prompts, such as {"steps": 100}',
    },
    "memory?": {
      type: "object",
      description: 'what the merge may take of memory, such as {"weights": "streamed", "device_gib": 14}',
    },
    "include?": { ...list(string), description: 'module filters such as "*.q_proj"' },
    "exclude?": list(string),
    "format?": { enum: [...OUTPUT_FORMATS], default: "peft" },
    "dtype?": { enum: [...OUTPUT_DTYPES], default: "float32" },
    "seed?": { ...integer, default: 42 },
    "device?": { enum: [...DEVICE_CHOICES], default: "auto" },
  }),
  Progress: {
    ...object({
      type: { enum: ["start", "needs", "note", "stage", "module", "finish"] },
      "code?": string,
      "message?": string,
      "where?": string,
      "modules?": integer,
      "rank?": integer,
      "device?": string,
      "warnings?": list(warning),
      "needs?": { type: "object", description: "bytes of memory, by kind, that the merge is to need" },
      "weights?": { enum: ["resident", "streamed"] },
      "stage?": string,
      "name?": string,
      "done?": integer,
      "total?": integer,
      "seconds?": number,
      "elapsed?": number,
      "remaining?": {
        ...nullable(number),
        description: "seconds, an estimate, of a stage for its kind alone; null until it is known",
      },
    }),
  },
  MergeResult: object({
    rank: integer,
    modules: integer,
    bytes: integer,
    device: object({ name: string, backend: string }),
    seconds: mapOf(number),
    peak_rss_bytes: nullable(integer),
    peak_gpu_bytes: nullable(integer),
    quality: { type: "object" },
    warnings: list(warning),
    files: list(refer("File")),
  }),
  Merge: object({
    id: string,
    name: string,
    state: { enum: ["queued", "running", "done", "failed", "cancelled"] },
    request: refer("MergeRequest"),
    created: time,
    started: nullable(time),
    finished: nullable(time),
    waiting: { ...nullable(integer), description: "how many merges come before; null unless it waits" },
    progress: nullable(refer("Progress")),
    result: nullable(refer("MergeResult")),
    error: nullable(object({
      code: string,
      message: string,
      fix: string,
      where: string,
      "blame?": {
        enum: ["request", "work"],
        description: "request: the input was wrong; work: something broke while the merge ran",
      },
    })),
  }),
} satisfies Record<string, Schema>;
