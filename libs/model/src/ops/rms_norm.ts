import {
  type CpuTensor,
  defineOperation,
  type GpuDevice,
  matrixShape,
  requireShape,
  type Tensor,
} from "@lora-loom/tensor";
import { type Grain, grainOf, reduceLanes } from "./grid.ts";
import { dispatchRows, rowKernels } from "./row_kernels.ts";

const GROUP = 256;

const kernels = rowKernels({
  name: "rms_norm",
  buffers: [
    { name: "x", element: "f32", access: "read" },
    { name: "gain", element: "f32", access: "read" },
    { name: "result", element: "f32", access: "read_write" },
  ],
  params: [["epsilon", "f32"]],
  invocation: /* wgsl */ `
  let first = i * params.width;
  var sum = 0.0;
  for (var c = 0u; c < params.width; c++) {
    let v = x[first + c];
    sum = fma(v, v, sum);
  }
  let scale = 1.0 / sqrt(sum / f32(params.width) + params.epsilon);
  for (var c = 0u; c < params.width; c++) {
    result[first + c] = x[first + c] * scale * gain[c];
  }`,
  workgroup: {
    lanes: GROUP,
    shared: `var<workgroup> partial: array<f32, ${GROUP}>;`,
    bytesPerLane: 4,
    code: /* wgsl */ `
  let first = i * params.width;
  var sum = 0.0;
  for (var c = lane; c < params.width; c += ${GROUP}u) {
    let v = x[first + c];
    sum = fma(v, v, sum);
  }
  partial[lane] = sum;
  ${reduceLanes("partial", GROUP)}
  let scale = 1.0 / sqrt(partial[0] / f32(params.width) + params.epsilon);
  for (var c = lane; c < params.width; c += ${GROUP}u) {
    result[first + c] = x[first + c] * scale * gain[c];
  }`,
  },
});

/** Queues one variant, whatever the device's class; the operation chooses between them. */
export function dispatchRmsNorm(
  device: GpuDevice,
  grain: Grain,
  x: Tensor,
  gain: Tensor,
  epsilon: number,
): Tensor {
  const [rows, width] = normShape(x, gain);
  const result = device.empty(x.shape);
  dispatchRows(device, kernels, grain, [x, gain, result], [rows, width, epsilon]);
  return result;
}

/** Rows are as wide as the gain, so the heads inside a row can be normed one by one. */
export function normShape(x: Tensor, gain: Tensor): readonly [rows: number, width: number] {
  const [rows, columns] = matrixShape(x, "rms_norm");
  const width = gain.shape[0]!;
  if (columns % width !== 0) requireShape(gain, [columns], "gain", "rms_norm");
  return [rows * columns / width, width];
}

/**
 * Root-mean-square norm, x / √(mean(x²) + ε) · gain, over every run of `width` elements: `[rows, n·width], [width]`.
 * With n = 1 the norm of a whole row, otherwise of each head in it. arXiv 1910.07467, eq. 4.
 */
export const rmsNorm: (x: Tensor, gain: Tensor, epsilon: number) => Tensor = defineOperation<
  [Tensor, Tensor, number],
  Tensor
>({
  name: "rms_norm",
  kernels: Object.values(kernels),
  gpu: (device, x, gain, epsilon) => dispatchRmsNorm(device, grainOf(device), x, gain, epsilon),
  cpu(device, x, gain, epsilon) {
    const [rows, width] = normShape(x, gain);
    const result = device.zeros(x.shape);
    for (let row = 0; row < rows; row++) {
      const values = (x as CpuTensor).floats.subarray(row * width, (row + 1) * width);
      const meanSquare = values.reduce((sum, value) => sum + value * value, 0) / width;
      const scale = 1 / Math.sqrt(meanSquare + epsilon);
      values.forEach((value, c) =>
        result.floats[row * width + c] = value * scale * (gain as CpuTensor).floats[c]!
      );
    }
    return result;
  },
});
