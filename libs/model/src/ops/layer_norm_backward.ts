import {
  type CpuTensor,
  defineOperation,
  type GpuDevice,
  matrixShape,
  requireShape,
  type Tensor,
} from "@lora-loom/tensor";
import { type Grain, grainOf, reduceLanes } from "./grid.ts";
import { normGradientKernels } from "./norm_gradient.ts";
import { dispatchRows } from "./row_kernels.ts";

const GROUP = 64;

const kernels = normGradientKernels({
  name: "layer_norm_backward",
  invocation: /* wgsl */ `
  let first = i * params.width;
  let size = f32(params.width);
  // Of the inputs, and of what arrives at them.
  var sums = vec2f();
  for (var c = 0u; c < params.width; c++) { sums += vec2f(x[first + c], gain[c] * gradient[first + c]); }
  let means = sums / size;
  sums = vec2f();
  for (var c = 0u; c < params.width; c++) {
    let v = x[first + c] - means.x;
    sums += vec2f(v * v, v * (gain[c] * gradient[first + c] - means.y));
  }
  let scale = 1.0 / sqrt(sums.x / size + params.epsilon);
  let pull = sums.y * scale * scale / size;
  for (var c = 0u; c < params.width; c++) {
    into[first + c] += scale * (gain[c] * gradient[first + c] - means.y - (x[first + c] - means.x) * pull);
  }`,
  // The mean first, then what depends on it, so that nothing cancels. Fixed summation trees.
  workgroup: {
    lanes: GROUP,
    shared: `var<workgroup> partial: array<vec2f, ${GROUP}>;`,
    bytesPerLane: 8,
    code: /* wgsl */ `
  let first = i * params.width;
  let size = f32(params.width);
  // Of the inputs, and of what arrives at them.
  var sums = vec2f();
  for (var c = lane; c < params.width; c += ${GROUP}u) {
    sums += vec2f(x[first + c], gain[c] * gradient[first + c]);
  }
  partial[lane] = sums;
  ${reduceLanes("partial", GROUP)}
  let means = partial[0] / size;
  workgroupBarrier();
  sums = vec2f();
  for (var c = lane; c < params.width; c += ${GROUP}u) {
    let v = x[first + c] - means.x;
    sums += vec2f(v * v, v * (gain[c] * gradient[first + c] - means.y));
  }
  partial[lane] = sums;
  ${reduceLanes("partial", GROUP)}
  let scale = 1.0 / sqrt(partial[0].x / size + params.epsilon);
  let pull = partial[0].y * scale * scale / size;
  for (var c = lane; c < params.width; c += ${GROUP}u) {
    into[first + c] += scale * (gain[c] * gradient[first + c] - means.y - (x[first + c] - means.x) * pull);
  }`,
  },
});

/** Queues one variant, whatever the device's class; the operation chooses between them. */
export function dispatchLayerNormBackward(
  device: GpuDevice,
  grain: Grain,
  x: Tensor,
  gain: Tensor,
  gradient: Tensor,
  epsilon: number,
  into: Tensor,
): void {
  const [rows, width] = check(x, gain, gradient, into);
  dispatchRows(device, kernels, grain, [x, gain, gradient, into], [rows, width, epsilon]);
}

function check(x: Tensor, gain: Tensor, gradient: Tensor, into: Tensor) {
  const [rows, width] = matrixShape(x, "layer_norm_backward");
  requireShape(gain, [width], "gain", "layer_norm_backward");
  requireShape(gradient, x.shape, "gradient", "layer_norm_backward");
  requireShape(into, x.shape, "into", "layer_norm_backward");
  return [rows, width] as const;
}

/**
 * The gradient at the input of `layerNorm`, added to `into`: with v = x − mean(x), s = 1/√(mean(v²) + ε) and u = gain∘g less its mean,
 * s·(u − v·s²·mean(v∘u)) in every row. `x`, `gradient` (at the output) and `into` `[rows, width]`, `gain [width]`.
 */
export const layerNormBackward: (
  x: Tensor,
  gain: Tensor,
  gradient: Tensor,
  epsilon: number,
  into: Tensor,
) => void = defineOperation<[Tensor, Tensor, Tensor, number, Tensor], void>({
  name: "layer_norm_backward",
  kernels: Object.values(kernels),
  gpu: (device, ...args) => dispatchLayerNormBackward(device, grainOf(device), ...args),
  cpu(_device, x, gain, gradient, epsilon, into) {
    const [rows, width] = check(x, gain, gradient, into);
    const factors = (gain as CpuTensor).floats;
    const mean = (values: Float64Array) => values.reduce((sum, value) => sum + value, 0) / width;
    for (let row = 0; row < rows; row++) {
      const run = (tensor: Tensor) => (tensor as CpuTensor).floats.subarray(row * width, (row + 1) * width);
      const centred = (values: Float64Array) => {
        const middle = mean(values);
        return values.map((value) => value - middle);
      };
      const values = centred(run(x)), at = centred(run(gradient).map((value, c) => value * factors[c]!));
      const variance = mean(values.map((value) => value * value)) + epsilon;
      const along = mean(values.map((value, c) => value * at[c]!));
      const result = run(into);
      values.forEach((value, c) => result[c]! += (at[c]! - value * along / variance) / Math.sqrt(variance));
    }
  },
});
