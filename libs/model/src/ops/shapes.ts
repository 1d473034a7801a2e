import type { Tensor } from "@lora-loom/tensor";
import { ModelError } from "../errors.ts";

/** Rows and columns of a matrix. */
export function matrixShape(tensor: Tensor, where: string): readonly [rows: number, columns: number] {
  const [rows, columns] = tensor.shape;
  if (tensor.shape.length !== 2 || rows === undefined || columns === undefined) {
    throw shapeMismatch(where, `a matrix`, `shape [${tensor.shape}]`);
  }
  return [rows, columns];
}

/** Throws unless a tensor has exactly this shape. */
export function expectShape(tensor: Tensor, shape: readonly number[], where: string): void {
  if (tensor.shape.length !== shape.length || shape.some((size, axis) => tensor.shape[axis] !== size)) {
    throw shapeMismatch(where, `shape [${shape}]`, `shape [${tensor.shape}]`);
  }
}

function shapeMismatch(where: string, expected: string, found: string): ModelError {
  return new ModelError("shape_mismatch", `${where} expected ${expected}, found ${found}`, "check the operands' shapes", where);
}
