import { type CpuTensor, defineOperation, type Tensor } from "@lora-loom/tensor";
import { diagonalKernel, dispatchAlongDiagonal } from "./along_diagonal.ts";

const NAME = "iteris_diagonal_of";

const DIAGONAL_OF = diagonalKernel({
  name: NAME,
  vectors: [{ name: "diagonal", access: "read_write" }],
  code: /* wgsl */ `
  diagonal[row] = matrix[i];`,
});

/** The diagonal of a matrix of square blocks one below the other, `[rows, n] → [rows]`. */
export const diagonalOf: (matrix: Tensor) => Tensor = defineOperation<[Tensor], Tensor>({
  name: NAME,
  kernels: [DIAGONAL_OF],
  gpu(device, matrix) {
    const diagonal = device.empty([matrix.shape[0]!]);
    dispatchAlongDiagonal(device, DIAGONAL_OF, matrix, [diagonal]);
    return diagonal;
  },
  cpu(device, matrix) {
    const [rows, n] = matrix.shape as [number, number];
    const values = (matrix as CpuTensor).floats;
    return device.wrap(Float64Array.from({ length: rows }, (_, row) => values[row * n + row % n]!), [rows]);
  },
});
