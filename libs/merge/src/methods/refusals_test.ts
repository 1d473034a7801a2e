/** What every data-free method refuses before it starts, by the code that callers see. */
import { assertEquals, assertThrows } from "@std/assert";
import { MergeError } from "../errors.ts";
import { recipeFromObject } from "../recipe/load.ts";
import { DATA_FREE_METHODS } from "./data_free.ts";

function codeOf(recipe: Record<string, unknown>): string {
  const complete = { adapters: [{ path: "a" }, { path: "b" }], output: { path: "out" }, ...recipe };
  return assertThrows(() => recipeFromObject(complete, "/tmp"), MergeError).code;
}

Deno.test("every data-free method refuses no adapter and weights that are not numbers", () => {
  for (const { name } of DATA_FREE_METHODS) {
    assertEquals(codeOf({ method: name, adapters: [] }), "invalid_value", name);
    for (const weight of ["much", null, NaN, Infinity]) {
      assertEquals(
        codeOf({ method: name, adapters: [{ path: "a", weight }] }),
        "invalid_value",
        `${name} ${weight}`,
      );
    }
  }
});

Deno.test("every density outside (0, 1] and every rank below 1 is refused, and unknown parameters are", () => {
  for (const { name, parameters } of DATA_FREE_METHODS) {
    const has = (wanted: string) => parameters.some((spec) => spec.name === wanted);
    if (has("density")) {
      for (const density of [0, -0.1, 1.01, "half", NaN]) {
        assertEquals(
          codeOf({ method: name, parameters: { density } }),
          "parameter_range",
          `${name} ${density}`,
        );
      }
    }
    if (has("rank")) {
      for (const rank of [0, -1, 2.5, "energy:0", "energy:1.1", "most"]) {
        assertEquals(codeOf({ method: name, parameters: { rank } }), "parameter_range", `${name} ${rank}`);
      }
    }
    assertEquals(codeOf({ method: name, parameters: { densty: 0.5 } }), "unknown_key", name);
  }
});
