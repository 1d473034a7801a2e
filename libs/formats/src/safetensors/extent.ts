import { FormatError } from "../errors.ts";
import { bitsOf, type StoredDType } from "./dtypes.ts";

/**
 * Bytes of a tensor.
 *
 * @throws {FormatError} `validation_overflow` where the product leaves the exact integers (as the reference does, even
 * if a later dimension is 0), `misaligned_slice` where a sub-byte tensor ends inside a byte
 */
export function byteLengthOf(dtype: StoredDType, shape: readonly number[], where: string): number {
  let bits = bitsOf(dtype);
  for (const dimension of shape) {
    bits *= dimension;
    if (Number.isSafeInteger(bits)) continue;
    throw new FormatError(
      "validation_overflow",
      `the shape [${shape.join(", ")}] of ${dtype} asks for more bytes than can be counted`,
      "The file is damaged or hostile: fetch it again from its source.",
      where,
    );
  }
  if (bits % 8 === 0) return bits / 8;
  throw new FormatError(
    "misaligned_slice",
    `the shape [${shape.join(", ")}] of ${dtype} ends inside a byte`,
    "Choose a range that ends at a whole byte; if the file itself says so, it is damaged.",
    where,
  );
}
