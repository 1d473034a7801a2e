/**
 * The part of `@std/assert` that this project uses, over `node:assert/strict`: the import map points here so that
 * the tests run where JSR cannot be reached. Names and behaviour are those of the JSR package.
 */
import nodeAssert from "node:assert/strict";

export { AssertionError } from "node:assert";

type ErrorClass<E extends Error> = new (...args: never[]) => E;

/** Asserts that `value` is truthy. */
export function assert(value: unknown, message = ""): asserts value {
  nodeAssert.ok(value, (message || undefined) as string);
}

/** Asserts deep, strict equality. */
export function assertEquals<T>(actual: T, expected: T, message?: string): void {
  nodeAssert.deepStrictEqual(actual, expected, message as string);
}

/** Asserts that two values are not deeply equal. */
export function assertNotEquals<T>(actual: T, expected: T, message?: string): void {
  nodeAssert.notDeepStrictEqual(actual, expected, message as string);
}

/** Asserts `Object.is` identity. */
export function assertStrictEquals<T>(actual: unknown, expected: T, message?: string): asserts actual is T {
  nodeAssert.strictEqual(actual, expected, message as string);
}

/** Asserts that a value is neither null nor undefined. */
export function assertExists<T>(actual: T, message?: string): asserts actual is NonNullable<T> {
  nodeAssert.ok(actual !== null && actual !== undefined, message ?? "expected a value");
}

/** Asserts that `value` is an instance of `type`. */
export function assertInstanceOf<E>(
  value: unknown,
  // deno-lint-ignore no-explicit-any
  type: abstract new (...args: any[]) => E,
  message?: string,
): asserts value is E {
  nodeAssert.ok(value instanceof type, message ?? `expected an instance of ${type.name}`);
}

/** Asserts that a string contains another. */
export function assertStringIncludes(actual: string, expected: string, message?: string): void {
  nodeAssert.ok(
    actual.includes(expected),
    message ?? `expected ${JSON.stringify(actual)} to contain ${JSON.stringify(expected)}`,
  );
}

/** Asserts that a string matches a pattern. */
export function assertMatch(actual: string, expected: RegExp, message?: string): void {
  nodeAssert.match(actual, expected, message as string);
}

/** Asserts `actual < expected`. */
export function assertLess(actual: number, expected: number, message?: string): void {
  nodeAssert.ok(actual < expected, message ?? `expected ${actual} < ${expected}`);
}

/** Asserts `actual <= expected`. */
export function assertLessOrEqual(actual: number, expected: number, message?: string): void {
  nodeAssert.ok(actual <= expected, message ?? `expected ${actual} <= ${expected}`);
}

/** Asserts `actual > expected`. */
export function assertGreater(actual: number, expected: number, message?: string): void {
  nodeAssert.ok(actual > expected, message ?? `expected ${actual} > ${expected}`);
}

/** Asserts `actual >= expected`. */
export function assertGreaterOrEqual(actual: number, expected: number, message?: string): void {
  nodeAssert.ok(actual >= expected, message ?? `expected ${actual} >= ${expected}`);
}

/** Asserts that two numbers differ by at most `tolerance` (default: 1e-7 relative to `expected`, as in `@std/assert`). */
export function assertAlmostEquals(
  actual: number,
  expected: number,
  tolerance?: number,
  message?: string,
): void {
  if (Object.is(actual, expected)) return;
  const allowed = tolerance ?? (Number.isFinite(expected) ? Math.abs(expected * 1e-7) : 1e-7);
  const delta = Math.abs(actual - expected);
  nodeAssert.ok(
    delta <= allowed,
    message ?? `expected ${actual} to be within ${allowed} of ${expected}, off by ${delta}`,
  );
}

function checkError<E extends Error>(
  error: unknown,
  type?: ErrorClass<E>,
  includes?: string,
  message?: string,
): E {
  nodeAssert.ok(error instanceof Error, message ?? "a non-Error was thrown");
  if (type) {
    nodeAssert.ok(
      error instanceof type,
      message ?? `expected ${type.name}, got ${error.name}: ${error.message}`,
    );
  }
  if (includes) assertStringIncludes(error.message, includes, message);
  return error as E;
}

/** Asserts that `body` throws, and returns the error. */
export function assertThrows<E extends Error = Error>(
  body: () => unknown,
  type?: ErrorClass<E>,
  includes?: string,
  message?: string,
): E {
  let thrown: unknown;
  try {
    body();
  } catch (error) {
    thrown = error ?? new Error("thrown: undefined");
  }
  nodeAssert.ok(thrown !== undefined, message ?? "expected the function to throw");
  return checkError(thrown, type, includes, message);
}

/** Asserts that `body` rejects, and resolves to the error. */
export async function assertRejects<E extends Error = Error>(
  body: () => PromiseLike<unknown>,
  type?: ErrorClass<E>,
  includes?: string,
  message?: string,
): Promise<E> {
  let thrown: unknown;
  try {
    await body();
  } catch (error) {
    thrown = error ?? new Error("rejected: undefined");
  }
  nodeAssert.ok(thrown !== undefined, message ?? "expected the promise to be rejected");
  return checkError(thrown, type, includes, message);
}
