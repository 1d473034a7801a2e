import { type CpuTensor, defineOperation, type Kernel, type Tensor } from "@lora-loom/tensor";
import { rowBlocks } from "./row_blocks.ts";

const WORKGROUP = 64;

const ADD_TO_DIAGONAL: Kernel = {
  name: "iteris_add_to_diagonal",
  buffers: [
    { name: "matrix", element: "f32", access: "read_write" },
    { name: "diagonal", element: "f32", access: "read" },
  ],
  params: [["n", "u32"], ["first", "u32"], ["rows", "u32"], ["shift", "f32"]],
  code: /* wgsl */ `
@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.rows) { return; }
  let column = params.first + id.x;
  let i = id.x * params.n + column;
  matrix[i] = matrix[i] + (diagonal[column] + params.shift);
}`,
};

/** matrix += diag(diagonal) + shift·I in place, `[n, n]` and `[n]`. */
export const addToDiagonal: (matrix: Tensor, diagonal: Tensor, shift: number) => void = defineOperation<
  [Tensor, Tensor, number],
  void
>({
  name: "iteris_add_to_diagonal",
  kernels: [ADD_TO_DIAGONAL],
  gpu(device, matrix, diagonal, shift) {
    const n = diagonal.shape[0]!;
    for (const { of, first, rows } of rowBlocks(device, n)) {
      const groups = [Math.ceil(rows / WORKGROUP)] as const;
      device.dispatch(ADD_TO_DIAGONAL, [of(matrix), diagonal], [n, first, rows, shift], groups);
    }
  },
  cpu(_device, matrix, diagonal, shift) {
    const n = diagonal.shape[0]!;
    const values = (matrix as CpuTensor).floats;
    (diagonal as CpuTensor).floats.forEach((value, i) => values[i * n + i]! += value + shift);
  },
});

/** matrix += shift·I in place, `[n, n]`. */
export function shiftDiagonal(matrix: Tensor, shift: number): void {
  using none = matrix.device.zeros([matrix.shape[0]!]);
  addToDiagonal(matrix, none, shift);
}
