import { type CpuTensor, defineOperation, type Kernel, type Tensor } from "@lora-loom/tensor";

const WORKGROUP = 64;

const DIAGONAL_SCALES: Kernel = {
  name: "iteris_diagonal_scales",
  buffers: [
    { name: "matrix", element: "f32", access: "read" },
    { name: "scales", element: "f32", access: "read_write" },
  ],
  params: [["n", "u32"], ["ridge", "f32"]],
  code: /* wgsl */ `
@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.n) { return; }
  let value = matrix[id.x * params.n + id.x] + params.ridge;
  let exponent = i32((bitcast<u32>(value) >> 23u) & 0xffu) - 127;
  scales[id.x] = bitcast<f32>(u32(127 - (exponent >> 1u)) << 23u);
}`,
};

const SCALE_SYMMETRIC: Kernel = {
  name: "iteris_scale_symmetric",
  buffers: [
    { name: "matrix", element: "f32", access: "read" },
    { name: "scales", element: "f32", access: "read" },
    { name: "result", element: "f32", access: "read_write" },
  ],
  params: [["n", "u32"], ["ridge", "f32"]],
  code: /* wgsl */ `
@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.y;
  let column = id.x;
  if (column >= params.n) { return; }
  let value = matrix[row * params.n + column] + select(0.0, params.ridge, row == column);
  result[row * params.n + column] = value * scales[row] * scales[column];
}`,
};

/** A matrix with a diagonal near 1, and what it was scaled by. */
export interface Equilibrated {
  /** S (G + ridge·I) S, `[n, n]`. */
  readonly matrix: Tensor;
  /** The diagonal of S, `[n]`: powers of two, so that scaling rounds nothing. */
  readonly scales: Tensor;
}

/** Scales a symmetric positive definite G + ridge·I so that its diagonal lies in [1, 4). */
export const equilibrate: (gram: Tensor, ridge: number) => Equilibrated = defineOperation<
  [Tensor, number],
  Equilibrated
>({
  name: "iteris_equilibrate",
  kernels: [DIAGONAL_SCALES, SCALE_SYMMETRIC],
  gpu(device, gram, ridge) {
    const n = gram.shape[0]!;
    const scales = device.empty([n]);
    const matrix = device.empty([n, n]);
    const groups = Math.ceil(n / WORKGROUP);
    device.dispatch(DIAGONAL_SCALES, [gram, scales], [n, ridge], [groups]);
    device.dispatch(SCALE_SYMMETRIC, [gram, scales, matrix], [n, ridge], [groups, n]);
    return { matrix, scales };
  },
  cpu(device, gram, ridge) {
    const n = gram.shape[0]!;
    const values = (gram as CpuTensor).floats;
    const scales = Float64Array.from({ length: n }, (_, i) => {
      return 2 ** -Math.floor(Math.floor(Math.log2(values[i * n + i]! + ridge)) / 2);
    });
    const matrix = values.map((value, index) => {
      const [row, column] = [Math.floor(index / n), index % n];
      return (value + (row === column ? ridge : 0)) * scales[row]! * scales[column]!;
    });
    return { matrix: device.wrap(matrix, [n, n]), scales: device.wrap(scales, [n]) };
  },
});
