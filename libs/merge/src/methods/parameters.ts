import * as v from "valibot";
import type { ParameterValue } from "../recipe/recipe.ts";

interface ParameterCommon {
  /** As in the recipe under `parameters`. */
  readonly name: string;
  /** One line. */
  readonly help: string;
  /** What it does in symbols, where that says more. */
  readonly formula?: string;
  /** In words, where the default depends on the adapters. */
  readonly defaultText?: string;
}

/** A number, whole or not, within bounds. */
export interface NumberParameter extends ParameterCommon {
  readonly type: "integer" | "number";
  readonly minimum?: number;
  readonly maximum?: number;
  /** When true, `minimum` itself is not allowed. */
  readonly exclusiveMinimum?: boolean;
  /** Words that may stand instead of a number, such as `auto`. */
  readonly keywords?: readonly string[];
  /** Texts that may stand instead of a number, such as `energy:0.95`. */
  readonly forms?: readonly ParameterForm[];
  readonly default?: number | string;
}

/** A word with a number after a colon, such as `energy:0.95`. */
export interface ParameterForm {
  readonly word: string;
  /** The number is greater than this … */
  readonly above: number;
  /** … and at most this. */
  readonly maximum?: number;
  /** What it means, in a few words. */
  readonly help: string;
}

/** One of several words. */
export interface ChoiceParameter extends ParameterCommon {
  readonly type: "choice";
  readonly choices: readonly string[];
  readonly default?: string;
}

/** Yes or no. */
export interface BooleanParameter extends ParameterCommon {
  readonly type: "boolean";
  readonly default?: boolean;
}

/** A parameter of a method as data: validation, documentation and the JSON Schema are all made from this. */
export type ParameterSpec = NumberParameter | ChoiceParameter | BooleanParameter;

/** What a parameter accepts, in words: `a whole number ≥ 1, or auto`. */
export function rangeText(spec: ParameterSpec): string {
  if (spec.type === "boolean") return "true or false";
  if (spec.type === "choice") return spec.choices.join(", ");
  const kind = spec.type === "integer" ? "a whole number" : "a number";
  const low = spec.minimum === undefined ? "" : ` ${spec.exclusiveMinimum ? ">" : "≥"} ${spec.minimum}`;
  const high = spec.maximum === undefined ? "" : `${low ? " and" : ""} ≤ ${spec.maximum}`;
  const words = [...spec.keywords ?? [], ...(spec.forms ?? []).map(formText)];
  return `${kind}${low}${high}${words.map((word) => `, or ${word}`).join("")}`;
}

/** `energy:X (0 < X ≤ 1)`. */
function formText({ word, above, maximum }: ParameterForm): string {
  return `${word}:X (${maximum === undefined ? `X > ${above}` : `${above} < X ≤ ${maximum}`})`;
}

/** The form that a value has, and its number; undefined when it has none. */
export function readForm(
  forms: readonly ParameterForm[],
  value: unknown,
): { word: string; number: number } | undefined {
  const [word, text, ...rest] = typeof value === "string" ? value.split(":") : [];
  const form = forms.find((candidate) => candidate.word === word);
  if (!form || !text?.trim() || rest.length > 0) return undefined;
  const number = Number(text);
  const isInRange = Number.isFinite(number) && number > form.above && number <= (form.maximum ?? Infinity);
  return isInRange ? { word: form.word, number } : undefined;
}

/** The default in words. */
export function defaultText(spec: ParameterSpec): string {
  return spec.defaultText ?? (spec.default === undefined ? "none" : String(spec.default));
}

function isInRange(spec: NumberParameter, value: number): boolean {
  if (!Number.isFinite(value)) return false;
  if (spec.type === "integer" && !Number.isSafeInteger(value)) return false;
  if (spec.minimum !== undefined && (spec.exclusiveMinimum ? value <= spec.minimum : value < spec.minimum)) {
    return false;
  }
  return spec.maximum === undefined || value <= spec.maximum;
}

/** A valibot schema that accepts exactly what {@linkcode rangeText} says. */
export function parameterSchema(spec: ParameterSpec): v.GenericSchema<unknown, ParameterValue> {
  const message = `expected ${rangeText(spec)}`;
  if (spec.type === "boolean") return v.boolean(message);
  if (spec.type === "choice") return v.picklist(spec.choices, message);
  const number = v.pipe(v.number(message), v.check((value) => isInRange(spec, value), message));
  const { keywords = [], forms = [] } = spec;
  if (keywords.length + forms.length === 0) return number;
  const form = v.pipe(v.string(message), v.check((value) => readForm(forms, value) !== undefined, message));
  return v.union([v.picklist(keywords), form, number], message);
}

/** The parameter as JSON Schema (draft 2020-12). */
export function parameterJsonSchema(spec: ParameterSpec): Record<string, unknown> {
  const about = {
    description: spec.formula ? `${spec.help} (${spec.formula})` : spec.help,
    ...(spec.default === undefined ? {} : { default: spec.default }),
  };
  if (spec.type === "boolean") return { type: "boolean", ...about };
  if (spec.type === "choice") return { enum: [...spec.choices], ...about };
  const number = {
    type: spec.type,
    ...(spec.minimum === undefined
      ? {}
      : { [spec.exclusiveMinimum ? "exclusiveMinimum" : "minimum"]: spec.minimum }),
    ...(spec.maximum === undefined ? {} : { maximum: spec.maximum }),
  };
  return spec.keywords
    ? { anyOf: [number, { enum: [...spec.keywords] }], ...about }
    : { ...number, ...about };
}
