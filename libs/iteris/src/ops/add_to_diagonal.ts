import {
  type CpuTensor,
  defineOperation,
  forEachRowWindow,
  type Kernel,
  type Tensor,
  wholeMatrix,
  windowOf,
} from "@lora-loom/tensor";
import { multiple } from "../algebra.ts";

const NAME = "iteris_add_to_diagonal";
const WORKGROUP = 64;

const ADD_TO_DIAGONAL: Kernel = {
  name: NAME,
  buffers: [
    { name: "matrix", element: "f32", access: "read_write" },
    { name: "diagonal", element: "f32", access: "read" },
  ],
  params: [["n", "u32"], ["base", "u32"], ["first", "u32"], ["rows", "u32"], ["shift", "f32"]],
  code: /* wgsl */ `
@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.rows) { return; }
  let column = (params.first + id.x) % params.n;
  let i = params.base + id.x * params.n + column;
  matrix[i] = matrix[i] + (diagonal[column] + params.shift);
}`,
};

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
    const n = diagonal.shape[0]!;
    forEachRowWindow(device, wholeMatrix(matrix, NAME), NAME, (view, first) => {
      const { window, base } = windowOf(device, view);
      const groups = [Math.ceil(view.rows / WORKGROUP)] as const;
      device.dispatch(ADD_TO_DIAGONAL, [window, diagonal], [n, base, first, view.rows, shift], groups);
    });
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
