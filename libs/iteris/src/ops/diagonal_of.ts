import {
  type CpuTensor,
  defineOperation,
  forEachRowWindow,
  type Kernel,
  type Tensor,
  wholeMatrix,
  windowOf,
} from "@lora-loom/tensor";

const NAME = "iteris_diagonal_of";
const WORKGROUP = 64;

const DIAGONAL_OF: Kernel = {
  name: NAME,
  buffers: [
    { name: "matrix", element: "f32", access: "read" },
    { name: "diagonal", element: "f32", access: "read_write" },
  ],
  params: [["n", "u32"], ["base", "u32"], ["first", "u32"], ["rows", "u32"]],
  code: /* wgsl */ `
@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.rows) { return; }
  let row = params.first + id.x;
  diagonal[row] = matrix[params.base + id.x * params.n + row % params.n];
}`,
};

/** The diagonal of a matrix of square blocks one below the other, `[rows, n] → [rows]`. */
export const diagonalOf: (matrix: Tensor) => Tensor = defineOperation<[Tensor], Tensor>({
  name: NAME,
  kernels: [DIAGONAL_OF],
  gpu(device, matrix) {
    const [rows, n] = matrix.shape as [number, number];
    const diagonal = device.empty([rows]);
    forEachRowWindow(device, wholeMatrix(matrix, NAME), NAME, (view, first) => {
      const { window, base } = windowOf(device, view);
      const groups = [Math.ceil(view.rows / WORKGROUP)] as const;
      device.dispatch(DIAGONAL_OF, [window, diagonal], [n, base, first, view.rows], groups);
    });
    return diagonal;
  },
  cpu(device, matrix) {
    const [rows, n] = matrix.shape as [number, number];
    const values = (matrix as CpuTensor).floats;
    return device.wrap(Float64Array.from({ length: rows }, (_, row) => values[row * n + row % n]!), [rows]);
  },
});
