import type { Schema } from "../http/schemas.ts";

type Definitions = Readonly<Record<string, Schema>>;
type Properties = Readonly<Record<string, Schema>>;

function typeOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "array" : typeof value;
}

function isOfType(value: unknown, type: string): boolean {
  return type === "integer" ? Number.isInteger(value) : typeOf(value) === type;
}

/** Where a value does not fit a JSON Schema; empty where it does. Knows the keywords that the API's schemas use. */
export function misfits(value: unknown, schema: Schema, definitions: Definitions, path = "$"): string[] {
  const inside = (part: unknown, one: Schema, name: string) =>
    misfits(part, one, definitions, `${path}.${name}`);
  if (typeof schema.$ref === "string") {
    const name = schema.$ref.replace("#/components/schemas/", "");
    return misfits(value, definitions[name]!, definitions, path);
  }
  if (Array.isArray(schema.anyOf)) {
    const results = (schema.anyOf as Schema[]).map((one) => misfits(value, one, definitions, path));
    return results.some((found) => found.length === 0) ? [] : results.flat();
  }
  if (Array.isArray(schema.enum) && !schema.enum.includes(value)) {
    return [`${path} is ${JSON.stringify(value)}`];
  }
  if (typeof schema.type === "string" && !isOfType(value, schema.type)) {
    return [`${path} is ${typeOf(value)}, expected ${schema.type}`];
  }
  if (typeof schema.minimum === "number" && (value as number) < schema.minimum) {
    return [`${path} is ${value}`];
  }
  if (schema.format === "date-time" && Number.isNaN(Date.parse(value as string))) {
    return [`${path} is no time`];
  }
  if (Array.isArray(value) && schema.items) {
    return value.flatMap((item, index) => inside(item, schema.items as Schema, String(index)));
  }
  if (typeOf(value) !== "object") return [];
  const properties = (schema.properties ?? {}) as Properties;
  const found = value as Record<string, unknown>;
  const missing = ((schema.required ?? []) as string[]).filter((name) => !(name in found));
  return [
    ...missing.map((name) => `${path}.${name} is missing`),
    ...Object.entries(found).flatMap(([name, part]) => {
      if (properties[name]) return inside(part, properties[name], name);
      if (schema.additionalProperties === false) return [`${path}.${name} is not announced`];
      const rest = schema.additionalProperties;
      return typeof rest === "object" ? inside(part, rest as Schema, name) : [];
    }),
  ];
}
