import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { JsonError, type JsonLimits, type JsonProblem, parseJson, toPlain } from "./parse.ts";

function assertProblem(text: string, problem: JsonProblem, limits?: Partial<JsonLimits>): JsonError {
  const error = assertThrows(() => parseJson(text, limits), JsonError);
  assertEquals(error.problem, problem, error.message);
  return error;
}

Deno.test("parseJson() agrees with JSON.parse on any JSON value", () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 4 }), fc.constantFrom(undefined, 1), (value, indent) => {
      const text = JSON.stringify(value, null, indent);
      const expected = JSON.parse(text);
      const integersAreSafe = !/\d{16}/.test(text);
      if (integersAreSafe) assertEquals(toPlain(parseJson(text)), expected);
    }),
    { seed: 1, numRuns: 300 },
  );
});

Deno.test("parseJson() refuses what JSON.parse refuses, and nothing but JsonError is thrown", () => {
  const fragments = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"a"',
    '"b"',
    "1",
    "-",
    "0",
    ".5",
    "e3",
    "true",
    "null",
    "nul",
    " ",
    "\\",
    '"',
    "\0",
  ];
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...fragments), { maxLength: 12 }), (parts) => {
      const text = parts.join("");
      let isValid = true;
      try {
        JSON.parse(text);
      } catch {
        isValid = false;
      }
      try {
        assertEquals(toPlain(parseJson(text)), JSON.parse(text));
      } catch (error) {
        if (!(error instanceof JsonError)) throw error;
        if (isValid) assertEquals(error.problem, "duplicate_key", text);
      }
    }),
    { seed: 2, numRuns: 3000 },
  );
});

Deno.test("parseJson() keeps the order of keys that look like numbers", () => {
  assertEquals([...(parseJson('{"b":1,"10":2,"2":3}') as Map<string, unknown>).keys()], ["b", "10", "2"]);
});

Deno.test("parseJson() keeps __proto__ as a plain key", () => {
  const plain = toPlain(parseJson('{"__proto__":{"polluted":1}}')) as object;
  assertEquals(Object.keys(plain), ["__proto__"]);
  assertEquals(Object.getPrototypeOf(plain), Object.prototype);
});

Deno.test("parseJson() refuses a key that stands twice, also when one is escaped", () => {
  assertEquals(assertProblem('{"x":{"a":1,"a":2}}', "duplicate_key").path, ["x", "a"]);
  assertProblem('{"a":1,"\\u0061":2}', "duplicate_key");
});

Deno.test("parseJson() refuses integers that a double cannot hold", () => {
  assertEquals(parseJson("9007199254740991"), 9007199254740991);
  assertProblem("9007199254740993", "unsafe_integer");
  assertProblem("-9007199254740992", "unsafe_integer");
  assertProblem("1e999", "invalid_number");
});

Deno.test("parseJson() takes only whole numbers when naturalNumbers is set", () => {
  for (const text of ["1.0", "1e2", "-1", "-0"]) {
    assertProblem(text, "invalid_number", { naturalNumbers: true });
  }
  assertEquals(parseJson("12", { naturalNumbers: true }), 12);
});

Deno.test("parseJson() refuses strings that are no Unicode or hold control characters", () => {
  assertProblem('"\\ud800"', "syntax");
  assertProblem('"a\nb"', "syntax");
  assertProblem('"\\x"', "syntax");
  assertEquals(parseJson('"\\ud83d\\ude00\\\\"'), "😀\\");
});

Deno.test("parseJson() stops at its limits before they cost memory", () => {
  assertProblem("[".repeat(5_000_000), "too_deep");
  assertProblem("[1,2,3]", "too_many_members", { maxMembers: 2 });
  assertProblem('{"a":[1,2,3]}', "array_too_long", { maxArrayLength: 2 });
  assertEquals(toPlain(parseJson('{"a":[1,2]}', { maxArrayLength: 2, maxMembers: 1, maxDepth: 2 })), {
    a: [1, 2],
  });
});
