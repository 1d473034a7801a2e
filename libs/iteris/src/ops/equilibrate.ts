import {
  copy,
  type CpuTensor,
  defineOperation,
  forEachRowWindow,
  type Kernel,
  multiply,
  type Tensor,
  wholeMatrix,
  windowOf,
} from "@lora-loom/tensor";
import { multiple } from "../algebra.ts";
import { diagonalKernel, dispatchAlongDiagonal } from "./along_diagonal.ts";

const WORKGROUP = 64;

const DIAGONAL_SCALES = diagonalKernel({
  name: "iteris_diagonal_scales",
  vectors: [{ name: "scales", access: "read_write" }, { name: "diagonal", access: "read_write" }],
  scalars: ["ridge"],
  code: /* wgsl */ `
  let value = matrix[i] + params.ridge;
  let exponent = i32((bitcast<u32>(value) >> 23u) & 0xffu) - 127;
  let scale = bitcast<f32>(u32(127 - (exponent >> 1u)) << 23u);
  scales[row] = scale;
  diagonal[row] = params.ridge * scale * scale;`,
});

const SCALE_SYMMETRIC: Kernel = {
  name: "iteris_scale_symmetric",
  buffers: [
    { name: "matrix", element: "f32", access: "read" },
    { name: "scales", element: "f32", access: "read" },
    { name: "result", element: "f32", access: "read_write" },
  ],
  params: [["n", "u32"], ["base", "u32"], ["first", "u32"]],
  code: /* wgsl */ `
@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.y;
  let column = id.x;
  if (column >= params.n) { return; }
  let i = params.base + row * params.n + column;
  result[i] = matrix[i] * scales[params.first + row] * scales[column];
}`,
};

/** A matrix with a diagonal near 1, and what it was scaled by. */
export interface Equilibrated {
  /** S G S, `[n, n]`. */
  readonly matrix: Tensor;
  /** The diagonal of ridge·S², `[n]`, apart so that it is not lost in the rounding of S G S. */
  readonly diagonal: Tensor;
  /** The diagonal of S, `[n]`: powers of two, so that scaling rounds nothing. */
  readonly scales: Tensor;
}

/** Scales a symmetric positive definite G + ridge·I so that its diagonal lies in [1, 4): S G S + ridge·S². */
export function equilibrate(gram: Tensor, ridge: number): Equilibrated {
  const { scales, diagonal } = diagonalScales(gram, ridge);
  return { matrix: scaleSymmetric(gram, scales), diagonal, scales };
}

/** Scales another matrix, much like the one that was scaled, by the same S. */
export function equilibrateLike({ scales }: Equilibrated, gram: Tensor, ridge: number): Equilibrated {
  using squares = multiply(scales, scales);
  return { matrix: scaleSymmetric(gram, scales), diagonal: multiple(squares, ridge), scales: copy(scales) };
}

const diagonalScales = defineOperation<[Tensor, number], Omit<Equilibrated, "matrix">>({
  name: DIAGONAL_SCALES.name,
  kernels: [DIAGONAL_SCALES],
  gpu(device, gram, ridge) {
    const n = gram.shape[0]!;
    const scales = device.empty([n]);
    const diagonal = device.empty([n]);
    dispatchAlongDiagonal(device, DIAGONAL_SCALES, gram, [scales, diagonal], [ridge]);
    return { scales, diagonal };
  },
  cpu(device, gram, ridge) {
    const n = gram.shape[0]!;
    const values = (gram as CpuTensor).floats;
    const scales = Float64Array.from({ length: n }, (_, i) => {
      const value = values[i * n + i]! + ridge;
      return value > 0 ? 2 ** -Math.floor(Math.floor(Math.log2(value)) / 2) : 1;
    });
    const diagonal = scales.map((scale) => ridge * scale * scale);
    return { scales: device.wrap(scales, [n]), diagonal: device.wrap(diagonal, [n]) };
  },
});

/** S G S */
const scaleSymmetric = defineOperation<[Tensor, Tensor], Tensor>({
  name: SCALE_SYMMETRIC.name,
  kernels: [SCALE_SYMMETRIC],
  gpu(device, gram, scales) {
    const n = gram.shape[0]!;
    const matrix = device.empty([n, n]);
    forEachRowWindow(device, wholeMatrix(gram, SCALE_SYMMETRIC.name), SCALE_SYMMETRIC.name, (view, first) => {
      const { window, base } = windowOf(device, view);
      const scaled = windowOf(device, { ...view, tensor: matrix });
      const groups = [Math.ceil(n / WORKGROUP), view.rows] as const;
      device.dispatch(SCALE_SYMMETRIC, [window, scales, scaled.window], [n, base, first], groups);
    });
    return matrix;
  },
  cpu(device, gram, scales) {
    const n = gram.shape[0]!;
    const factors = (scales as CpuTensor).floats;
    const matrix = (gram as CpuTensor).floats.map((value, index) =>
      value * factors[Math.floor(index / n)]! * factors[index % n]!
    );
    return device.wrap(matrix, [n, n]);
  },
});
