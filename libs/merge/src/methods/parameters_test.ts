import { assert, assertEquals } from "@std/assert";
import * as v from "valibot";
import { recipeJsonSchema } from "../recipe/json_schema.ts";
import {
  defaultText,
  parameterJsonSchema,
  parameterSchema,
  type ParameterSpec,
  rangeText,
} from "./parameters.ts";
import { METHODS } from "./registry.ts";

const accepts = (spec: ParameterSpec, value: unknown) => v.safeParse(parameterSchema(spec), value).success;

Deno.test("parameterSchema() accepts exactly what rangeText() says", () => {
  const density: ParameterSpec = {
    name: "density",
    type: "number",
    minimum: 0,
    exclusiveMinimum: true,
    maximum: 1,
    help: "",
  };
  assertEquals(rangeText(density), "a number > 0 and ≤ 1");
  assertEquals([0, 1e-9, 1, 1.5, NaN, "1", null].map((value) => accepts(density, value)), [
    false,
    true,
    true,
    false,
    false,
    false,
    false,
  ]);
  const alpha: ParameterSpec = { name: "alpha", type: "number", minimum: 0, keywords: ["auto"], help: "" };
  assertEquals(rangeText(alpha), "a number ≥ 0, or auto");
  assertEquals([0, "auto", "automatic", -1].map((value) => accepts(alpha, value)), [
    true,
    true,
    false,
    false,
  ]);
  const rank: ParameterSpec = { name: "rank", type: "integer", minimum: 1, help: "" };
  assertEquals([1, 2.5, 2 ** 60, 0].map((value) => accepts(rank, value)), [true, false, false, false]);
  assertEquals(parameterJsonSchema(alpha), {
    anyOf: [{ type: "number", minimum: 0 }, { enum: ["auto"] }],
    description: "",
  });
});

Deno.test("every method declares parameters with help, unique names and a default that it accepts itself", () => {
  for (const method of METHODS.values()) {
    const names = method.parameters.map(({ name }) => name);
    assertEquals(new Set(names).size, names.length, method.name);
    for (const spec of method.parameters) {
      const where = `${method.name}.${spec.name}`;
      assert(
        /^[a-z][a-z0-9_]*$/.test(spec.name) && spec.help.length > 10 && !spec.help.includes("\n"),
        where,
      );
      assert(spec.default === undefined ? defaultText(spec) !== "" : accepts(spec, spec.default), where);
    }
  }
});

Deno.test("the contract's parameters exist under their names", () => {
  const has = (method: string, names: string[]) => {
    const found = METHODS.get(method)!.parameters.map(({ name }) => name);
    for (const name of names) assert(found.includes(name), `${method} lacks ${name}`);
  };
  for (const method of ["lego", "lego+"]) {
    has(method, ["rank", "output_scale", "parameter_reweight", "features"]);
  }
  has("svd", ["rank"]);
  has("linear", ["rank", "peft_compatible"]);
});

Deno.test("recipeJsonSchema() ties each method to its own parameters", () => {
  const schema = recipeJsonSchema(METHODS.values()) as {
    properties: { method: { enum: string[] } };
    allOf: {
      if: { properties: { method: { const: string } } };
      then: { properties: { parameters: { properties: object } } };
    }[];
  };
  assertEquals(schema.properties.method.enum, [...METHODS.keys()]);
  for (const { if: condition, then } of schema.allOf) {
    const method = METHODS.get(condition.properties.method.const)!;
    assertEquals(
      Object.keys(then.properties.parameters.properties),
      method.parameters.map(({ name }) => name),
    );
  }
});
