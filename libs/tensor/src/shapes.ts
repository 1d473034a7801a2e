import { TensorError } from "./errors.ts";
import type { Tensor } from "./tensor.ts";

/** Rows and columns of a matrix. */
export function matrixShape(tensor: Tensor, where: string): readonly [rows: number, columns: number] {
  const [rows, columns] = tensor.shape;
  if (tensor.shape.length !== 2 || rows === undefined || columns === undefined) {
    throw new TensorError("shape_mismatch", `expected a matrix, found shape [${tensor.shape}]`, "reshape it to two axes", where);
  }
  return [rows, columns];
}
