import nodeAssert from "node:assert/strict";
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertExists,
  assertInstanceOf,
  AssertionError,
  assertLess,
  assertMatch,
  assertNotEquals,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";

/** Each assertion with arguments that hold and arguments that do not. */
const CASES: Readonly<Record<string, { holds: () => void; fails: () => void }>> = {
  assert: { holds: () => assert(1), fails: () => assert(0) },
  assertEquals: {
    holds: () => assertEquals({ a: [1, { b: NaN }] }, { a: [1, { b: NaN }] }),
    fails: () => assertEquals<unknown>({ a: 1 }, { a: "1" }),
  },
  assertNotEquals: { holds: () => assertNotEquals([1], [2]), fails: () => assertNotEquals([1], [1]) },
  assertStrictEquals: {
    holds: () => assertStrictEquals(NaN, NaN),
    fails: () => assertStrictEquals<unknown>({}, {}),
  },
  assertExists: { holds: () => assertExists(0), fails: () => assertExists(null) },
  assertInstanceOf: {
    holds: () => assertInstanceOf(new TypeError(), Error),
    fails: () => assertInstanceOf({}, Error),
  },
  assertStringIncludes: {
    holds: () => assertStringIncludes("adapter", "apt"),
    fails: () => assertStringIncludes("adapter", "rank"),
  },
  assertMatch: { holds: () => assertMatch("rank 8", /\d/), fails: () => assertMatch("rank", /\d/) },
  assertLess: { holds: () => assertLess(1, 2), fails: () => assertLess(2, 2) },
  assertAlmostEquals: {
    holds: () => assertAlmostEquals(1e10 + 1, 1e10),
    fails: () => assertAlmostEquals(1.001, 1),
  },
};

for (const [name, { holds, fails }] of Object.entries(CASES)) {
  Deno.test(`${name}() throws an AssertionError only where it does not hold`, () => {
    holds();
    nodeAssert.throws(fails, AssertionError);
  });
}

Deno.test("assertAlmostEquals() takes an absolute tolerance, and NaN for equal to itself only", () => {
  assertAlmostEquals(1.001, 1, 0.01);
  assertAlmostEquals(NaN, NaN);
  nodeAssert.throws(() => assertAlmostEquals(NaN, 1, 1), AssertionError);
});

Deno.test("assertThrows() gives the error, and fails where none, another class or another text is thrown", () => {
  const fail = () => {
    throw new TypeError("rank is 0");
  };
  nodeAssert.equal(assertThrows(fail, TypeError, "rank").message, "rank is 0");
  nodeAssert.throws(() => assertThrows(() => {}), AssertionError);
  nodeAssert.throws(() => assertThrows(fail, RangeError), AssertionError);
  nodeAssert.throws(() => assertThrows(fail, TypeError, "alpha"), AssertionError);
});

Deno.test("assertRejects() gives the error, and fails where none, another class or another text is thrown", async () => {
  const fail = () => Promise.reject(new TypeError("rank is 0"));
  nodeAssert.equal((await assertRejects(fail, TypeError, "rank")).message, "rank is 0");
  await nodeAssert.rejects(assertRejects(() => Promise.resolve()), AssertionError);
  await nodeAssert.rejects(assertRejects(fail, RangeError), AssertionError);
  await nodeAssert.rejects(assertRejects(fail, TypeError, "alpha"), AssertionError);
});
