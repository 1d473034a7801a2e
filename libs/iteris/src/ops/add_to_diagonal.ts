import { type CpuTensor, defineOperation, type Tensor } from "@lora-loom/tensor";
import { multiple } from "../algebra.ts";
import { diagonalKernel, dispatchAlongDiagonal } from "./along_diagonal.ts";

const NAME = "iteris_add_to_diagonal";

const ADD_TO_DIAGONAL = diagonalKernel({
  name: NAME,
  writesMatrix: true,
  vectors: [{ name: "diagonal", access: "read" }],
  scalars: ["shift"],
  code: /* wgsl */ `
  matrix[i] = matrix[i] + (diagonal[column] + params.shift);`,
});

/**
 * matrix += diag(diagonal) + shift·I in place, `[n, n]` and `[n]`; or to every square block of a `[rows, n]` that holds blocks one below
 * the other, the last of which may have fewer rows.
 */
export const addToDiagonal: (matrix: Tensor, diagonal: Tensor, shift: number) => void = defineOperation<
  [Tensor, Tensor, number],
  void
>({
  name: NAME,
  kernels: [ADD_TO_DIAGONAL],
  gpu(device, matrix, diagonal, shift) {
    dispatchAlongDiagonal(device, ADD_TO_DIAGONAL, matrix, [diagonal], [shift]);
  },
  cpu(_device, matrix, diagonal, shift) {
    const n = diagonal.shape[0]!;
    const values = (matrix as CpuTensor).floats;
    const added = (diagonal as CpuTensor).floats;
    for (let row = 0; row < matrix.shape[0]!; row++) {
      const column = row % n;
      values[row * n + column]! += added[column]! + shift;
    }
  },
});

/** matrix += shift·I in place, `[n, n]`, or blocks `[rows, n]`. */
export function shiftDiagonal(matrix: Tensor, shift: number): void {
  using none = matrix.device.zeros([matrix.shape[1]!]);
  addToDiagonal(matrix, none, shift);
}

/** factor · x + ridge · I, a new tensor, `[n, n]`, or blocks `[rows, n]`. */
export function withRidge(x: Tensor, factor: number, ridge: number): Tensor {
  const result = multiple(x, factor);
  shiftDiagonal(result, ridge);
  return result;
}
