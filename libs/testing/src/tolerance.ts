import { assert } from "@std/assert";

/** Root of the sum of squares. */
export function frobeniusNorm(x: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]! * x[i]!;
  return Math.sqrt(sum);
}

/** ‖actual − expected‖_F / ‖expected‖_F; the plain distance where `expected` is zero. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  assert(actual.length === expected.length, `lengths differ: ${actual.length} and ${expected.length}`);
  let distance = 0;
  for (let i = 0; i < expected.length; i++) distance += (actual[i]! - expected[i]!) ** 2;
  return Math.sqrt(distance) / (frobeniusNorm(expected) || 1);
}

/** Asserts a bound on {@linkcode relativeError}; NaN fails. */
export function assertRelativelyClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  message = "",
): void {
  const error = relativeError(actual, expected);
  assert(error <= tolerance, `${message} relative error ${error} exceeds ${tolerance}`.trim());
}

/**
 * Asserts the per-entry bound of a float32 dot product of length `k`: |error| ≤ 2√k · 2⁻²⁴ · Σ|a||b|, where `magnitude`
 * holds Σ|a||b| of each entry.
 */
export function assertDotProductsClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  magnitude: ArrayLike<number>,
  k: number,
): void {
  assert(actual.length === expected.length, `lengths differ: ${actual.length} and ${expected.length}`);
  const gamma = 2 * Math.sqrt(k) * 2 ** -24;
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(actual[i]! - expected[i]!);
    // One unit in the last place of the result itself is always allowed: it is stored as float32.
    const bound = gamma * magnitude[i]! + Math.abs(expected[i]!) * 2 ** -24;
    assert(
      error <= bound,
      `entry ${i}: ${actual[i]} against ${expected[i]}, off by ${error}, allowed ${bound}`,
    );
  }
}
