import { FormatError } from "../../errors.ts";
import { canWiden } from "../../numbers/widen.ts";
import type { StoredTensor } from "../../tensors/tensor_file.ts";

/**
 * Reads an alpha, a tensor with one value of any number type and of rank 0 or 1.
 *
 * @throws {FormatError} `alpha_invalid`, `alpha_zero`
 */
export async function readAlpha(tensor: StoredTensor, where: string): Promise<number> {
  const count = tensor.shape.reduce((product, dimension) => product * dimension, 1);
  if (count !== 1 || !canWiden(tensor.dtype)) {
    throw new FormatError(
      "alpha_invalid",
      `alpha has the shape [${
        tensor.shape.join(", ")
      }] and the dtype ${tensor.dtype}; one number was expected`,
      "The adapter is damaged: fetch or save it again.",
      where,
    );
  }
  return checkAlpha(await exactValue(tensor), where);
}

async function exactValue(tensor: StoredTensor): Promise<number> {
  if (tensor.dtype !== "F64") return (await tensor.readFloat32())[0]!;
  return new Float64Array((await tensor.read()).buffer)[0]!;
}

/** @throws {FormatError} `alpha_zero`, `alpha_invalid` */
export function checkAlpha(value: number, where: string): number {
  if (value === 0) {
    throw new FormatError(
      "alpha_zero",
      "alpha is 0, which means no effect to some programs and alpha = r to others",
      "Set alpha to what the adapter was trained with, or leave the module out with --drop NAME.",
      where,
    );
  }
  if (Number.isFinite(value)) return value;
  throw new FormatError(
    "alpha_invalid",
    `alpha is ${value}, a finite number was expected`,
    "The adapter is damaged: fetch or save it again.",
    where,
  );
}
