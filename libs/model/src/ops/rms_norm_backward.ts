import {
  type CpuTensor,
  defineOperation,
  type GpuDevice,
  requireShape,
  type Tensor,
} from "@lora-loom/tensor";
import { type Grain, grainOf, reduceLanes } from "./grid.ts";
import { normGradientKernels } from "./norm_gradient.ts";
import { normShape } from "./rms_norm.ts";
import { dispatchRows } from "./row_kernels.ts";

const GROUP = 256;

const kernels = normGradientKernels({
  name: "rms_norm_backward",
  invocation: /* wgsl */ `
  let first = i * params.width;
  var squares = 0.0;
  var along = 0.0;
  for (var c = 0u; c < params.width; c++) {
    let v = x[first + c];
    squares = fma(v, v, squares);
    along = fma(v * gain[c], gradient[first + c], along);
  }
  let size = f32(params.width);
  let scale = 1.0 / sqrt(squares / size + params.epsilon);
  let pull = along * scale * scale / size;
  for (var c = 0u; c < params.width; c++) {
    into[first + c] += scale * (gain[c] * gradient[first + c] - x[first + c] * pull);
  }`,
  workgroup: {
    lanes: GROUP,
    shared: `var<workgroup> partial: array<vec2f, ${GROUP}>;`,
    bytesPerLane: 8,
    code: /* wgsl */ `
  let first = i * params.width;
  var sums = vec2f();
  for (var c = lane; c < params.width; c += ${GROUP}u) {
    let v = x[first + c];
    sums += vec2f(v * v, v * gain[c] * gradient[first + c]);
  }
  partial[lane] = sums;
  ${reduceLanes("partial", GROUP)}
  let size = f32(params.width);
  let scale = 1.0 / sqrt(partial[0].x / size + params.epsilon);
  let pull = partial[0].y * scale * scale / size;
  for (var c = lane; c < params.width; c += ${GROUP}u) {
    into[first + c] += scale * (gain[c] * gradient[first + c] - x[first + c] * pull);
  }`,
  },
});

/** Queues one variant, whatever the device's class; the operation chooses between them. */
export function dispatchRmsNormBackward(
  device: GpuDevice,
  grain: Grain,
  x: Tensor,
  gain: Tensor,
  gradient: Tensor,
  epsilon: number,
  into: Tensor,
): void {
  const [rows, width] = checked(x, gain, gradient, into);
  dispatchRows(device, kernels, grain, [x, gain, gradient, into], [rows, width, epsilon]);
}

function checked(x: Tensor, gain: Tensor, gradient: Tensor, into: Tensor) {
  requireShape(gradient, x.shape, "gradient", "rms_norm_backward");
  requireShape(into, x.shape, "into", "rms_norm_backward");
  return normShape(x, gain);
}

/**
 * The gradient at the input of `rmsNorm`, added to `into`: with s = 1/√(mean(x²) + ε), s·(gain∘g − x·s²·mean(x∘gain∘g)) over every
 * run of `width` elements. `x`, `gradient` (at the output) and `into` `[rows, n·width]`, `gain [width]`.
 */
export const rmsNormBackward: (
  x: Tensor,
  gain: Tensor,
  gradient: Tensor,
  epsilon: number,
  into: Tensor,
) => void = defineOperation<[Tensor, Tensor, Tensor, number, Tensor], void>({
  name: "rms_norm_backward",
  kernels: Object.values(kernels),
  gpu: (device, ...args) => dispatchRmsNormBackward(device, grainOf(device), ...args),
  cpu(_device, x, gain, gradient, epsilon, into) {
    const [rows, width] = checked(x, gain, gradient, into);
    const factors = (gain as CpuTensor).floats;
    for (let row = 0; row < rows; row++) {
      const run = (tensor: Tensor) => (tensor as CpuTensor).floats.subarray(row * width, (row + 1) * width);
      const values = run(x), at = run(gradient), result = run(into);
      const meanSquare = values.reduce((sum, value) => sum + value * value, 0) / width;
      const along = values.reduce((sum, value, c) => sum + value * factors[c]! * at[c]!, 0) / width;
      const scale = 1 / Math.sqrt(meanSquare + epsilon);
      values.forEach((value, c) =>
        result[c]! += scale * (factors[c]! * at[c]! - value * along / (meanSquare + epsilon))
      );
    }
  },
});
