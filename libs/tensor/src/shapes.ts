import { TensorError } from "./errors.ts";
import type { DType, Tensor } from "./tensor.ts";

/** Rows and columns of a matrix. */
export function matrixShape(tensor: Tensor, where: string): readonly [rows: number, columns: number] {
  const [rows, columns] = tensor.shape;
  if (tensor.shape.length !== 2 || rows === undefined || columns === undefined) {
    throw new TensorError(
      "shape_mismatch",
      `expected a matrix, found shape [${tensor.shape}]`,
      "reshape it to two axes",
      where,
    );
  }
  return [rows, columns];
}

/** Throws unless the tensor has the shape. */
export function requireShape(tensor: Tensor, shape: readonly number[], what: string, where: string): void {
  if (tensor.shape.length === shape.length && shape.every((size, axis) => tensor.shape[axis] === size)) {
    return;
  }
  throw new TensorError(
    "shape_mismatch",
    `${what} of ${where} has shape [${tensor.shape}], expected [${shape}]`,
    "check the shapes of the operands",
    where,
  );
}

/** Throws unless all tensors hold f32, the one type that arithmetic is done in. */
export function requireF32(tensors: readonly (Tensor | undefined)[], where: string): void {
  requireDType(tensors, "f32", where);
}

/** Throws unless all tensors hold `dtype`. */
export function requireDType(tensors: readonly (Tensor | undefined)[], dtype: DType, where: string): void {
  const other = tensors.find((tensor) => tensor && tensor.dtype !== dtype);
  if (!other) return;
  throw new TensorError(
    "dtype_mismatch",
    `${where} got a tensor of ${other.dtype}, expected ${dtype}`,
    `convert it first: cast(x, "${dtype}")`,
    where,
  );
}

/** The error for a result that would overwrite an operand while it is read. */
export function aliasedOutput(where: string): TensorError {
  return new TensorError(
    "aliased_output",
    `${where} cannot write its result over one of its operands`,
    "pass another tensor as `into`, or none",
    where,
  );
}
