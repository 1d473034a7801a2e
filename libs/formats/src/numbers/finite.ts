import { FormatError } from "../errors.ts";

/**
 * Refuses NaN and infinities.
 *
 * @param where the file and tensor or module, for the error
 * @throws {FormatError} `not_finite`
 */
export function assertFinite(values: Float32Array | Float64Array, where: string): void {
  for (let i = 0; i < values.length; i++) {
    if (Number.isFinite(values[i]!)) continue;
    throw new FormatError(
      "not_finite",
      `value ${i} of ${values.length} is ${values[i]}, a finite number was expected`,
      "The adapter is damaged or its training diverged: leave the module or the adapter out.",
      where,
    );
  }
}
