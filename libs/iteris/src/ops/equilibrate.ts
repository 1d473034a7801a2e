import {
  type CpuTensor,
  defineOperation,
  forEachRowWindow,
  type Kernel,
  type Tensor,
  wholeMatrix,
  windowOf,
} from "@lora-loom/tensor";

const NAME = "iteris_equilibrate";
const WORKGROUP = 64;

const DIAGONAL_SCALES: Kernel = {
  name: "iteris_diagonal_scales",
  buffers: [
    { name: "matrix", element: "f32", access: "read" },
    { name: "scales", element: "f32", access: "read_write" },
    { name: "diagonal", element: "f32", access: "read_write" },
  ],
  params: [["n", "u32"], ["base", "u32"], ["first", "u32"], ["rows", "u32"], ["ridge", "f32"]],
  code: /* wgsl */ `
@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.rows) { return; }
  let i = params.first + id.x;
  let value = matrix[params.base + id.x * params.n + i] + params.ridge;
  let exponent = i32((bitcast<u32>(value) >> 23u) & 0xffu) - 127;
  let scale = bitcast<f32>(u32(127 - (exponent >> 1u)) << 23u);
  scales[i] = scale;
  diagonal[i] = params.ridge * scale * scale;
}`,
};

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
export const equilibrate: (gram: Tensor, ridge: number) => Equilibrated = defineOperation<
  [Tensor, number],
  Equilibrated
>({
  name: NAME,
  kernels: [DIAGONAL_SCALES, SCALE_SYMMETRIC],
  gpu(device, gram, ridge) {
    const n = gram.shape[0]!;
    const scales = device.empty([n]);
    const diagonal = device.empty([n]);
    const matrix = device.empty([n, n]);
    const whole = wholeMatrix(gram, NAME);
    forEachRowWindow(device, whole, NAME, (view, first) => {
      const { window, base } = windowOf(device, view);
      const params = [n, base, first, view.rows, ridge];
      device.dispatch(DIAGONAL_SCALES, [window, scales, diagonal], params, [
        Math.ceil(view.rows / WORKGROUP),
      ]);
    });
    forEachRowWindow(device, whole, NAME, (view, first) => {
      const { window, base } = windowOf(device, view);
      const scaled = windowOf(device, { ...view, tensor: matrix });
      const groups = [Math.ceil(n / WORKGROUP), view.rows] as const;
      device.dispatch(SCALE_SYMMETRIC, [window, scales, scaled.window], [n, base, first], groups);
    });
    return { matrix, diagonal, scales };
  },
  cpu(device, gram, ridge) {
    const n = gram.shape[0]!;
    const values = (gram as CpuTensor).floats;
    const scales = Float64Array.from({ length: n }, (_, i) => {
      const value = values[i * n + i]! + ridge;
      return value > 0 ? 2 ** -Math.floor(Math.floor(Math.log2(value)) / 2) : 1;
    });
    const matrix = values.map((value, index) => value * scales[Math.floor(index / n)]! * scales[index % n]!);
    const diagonal = scales.map((scale) => ridge * scale * scale);
    return {
      matrix: device.wrap(matrix, [n, n]),
      diagonal: device.wrap(diagonal, [n]),
      scales: device.wrap(scales, [n]),
    };
  },
});
