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

const GROUP = 64;

const kernels = rowKernels({
  name: "layer_norm",
  buffers: [
    { name: "x", element: "f32", access: "read" },
    { name: "gain", element: "f32", access: "read" },
    { name: "bias", element: "f32", access: "read" },
    { name: "result", element: "f32", access: "read_write" },
  ],
  params: [["epsilon", "f32"]],
  invocation: /* wgsl */ `
  let first = i * params.width;
  var sum = 0.0;
  for (var c = 0u; c < params.width; c++) { sum += x[first + c]; }
  let mean = sum / f32(params.width);
  var squares = 0.0;
  for (var c = 0u; c < params.width; c++) {
    let v = x[first + c] - mean;
    squares = fma(v, v, squares);
  }
  let scale = 1.0 / sqrt(squares / f32(params.width) + params.epsilon);
  for (var c = 0u; c < params.width; c++) {
    result[first + c] = (x[first + c] - mean) * scale * gain[c] + bias[c];
  }`,
  // The mean first, then the squares of what is left, so that nothing cancels. Fixed summation trees.
  workgroup: {
    lanes: GROUP,
    shared: `var<workgroup> partial: array<f32, ${GROUP}>;`,
    bytesPerLane: 4,
    code: /* wgsl */ `
  let first = i * params.width;
  var sum = 0.0;
  for (var c = lane; c < params.width; c += ${GROUP}u) { sum += x[first + c]; }
  partial[lane] = sum;
  ${reduceLanes("partial", GROUP)}
  let mean = partial[0] / f32(params.width);
  workgroupBarrier();
  var squares = 0.0;
  for (var c = lane; c < params.width; c += ${GROUP}u) {
    let v = x[first + c] - mean;
    squares = fma(v, v, squares);
  }
  partial[lane] = squares;
  ${reduceLanes("partial", GROUP)}
  let scale = 1.0 / sqrt(partial[0] / f32(params.width) + params.epsilon);
  for (var c = lane; c < params.width; c += ${GROUP}u) {
    result[first + c] = (x[first + c] - mean) * scale * gain[c] + bias[c];
  }`,
  },
});

/** Queues one variant, whatever the device's class; the operation chooses between them. */
export function dispatchLayerNorm(
  device: GpuDevice,
  grain: Grain,
  x: Tensor,
  gain: Tensor,
  bias: Tensor,
  epsilon: number,
): Tensor {
  const [rows, width] = check(x, gain, bias);
  const result = device.empty(x.shape);
  dispatchRows(device, kernels, grain, [x, gain, bias, result], [rows, width, epsilon]);
  return result;
}

function check(x: Tensor, gain: Tensor, bias: Tensor): readonly [rows: number, width: number] {
  const [rows, width] = matrixShape(x, "layer_norm");
  requireShape(gain, [width], "gain", "layer_norm");
  requireShape(bias, [width], "bias", "layer_norm");
  return [rows, width];
}

/** Layer norm, (x − mean) / √(variance + ε) · gain + bias, of every row: `[rows, width], [width], [width]`. arXiv 1607.06450. */
export const layerNorm: (x: Tensor, gain: Tensor, bias: Tensor, epsilon: number) => Tensor = defineOperation<
  [Tensor, Tensor, Tensor, number],
  Tensor
>({
  name: "layer_norm",
  kernels: Object.values(kernels),
  gpu: (device, ...args) => dispatchLayerNorm(device, grainOf(device), ...args),
  cpu(device, x, gain, bias, epsilon) {
    const [rows, width] = check(x, gain, bias);
    const result = device.zeros(x.shape);
    const [gains, biases] = [(gain as CpuTensor).floats, (bias as CpuTensor).floats];
    for (let row = 0; row < rows; row++) {
      const values = (x as CpuTensor).floats.subarray(row * width, (row + 1) * width);
      const mean = values.reduce((sum, value) => sum + value, 0) / width;
      const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / width;
      const scale = 1 / Math.sqrt(variance + epsilon);
      values.forEach((value, c) =>
        result.floats[row * width + c] = (value - mean) * scale * gains[c]! + biases[c]!
      );
    }
    return result;
  },
});
