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

/** A loss of every row, and its gradient. */
export interface Divergence {
  /** `[rows]` */
  readonly losses: Tensor;
  /** At the logits, `[rows, vocabulary]`. */
  readonly gradient: Tensor;
}

const GROUP = 256;

/** WGSL: leaves the reduction of every lane's `value` in `parts[0]`. */
function reduced(value: string, combine?: (left: string, right: string) => string): string {
  return `
  workgroupBarrier();
  parts[lane] = ${value};
  ${reduceLanes("parts", GROUP, combine)}`;
}

const kernels = rowKernels({
  name: "divergence",
  buffers: [
    { name: "logits", element: "f32", access: "read" },
    { name: "targets", element: "f32", access: "read" },
    { name: "factors", element: "f32", access: "read" },
    { name: "losses", element: "f32", access: "read_write" },
    { name: "gradient", element: "f32", access: "read_write" },
  ],
  params: [["sharpness", "f32"]],
  invocation: /* wgsl */ `
  let first = i * params.width;
  var highest = vec2f(-3e38);
  for (var c = 0u; c < params.width; c++) {
    highest = max(highest, vec2f(logits[first + c], targets[first + c]));
  }
  var sums = vec2f();
  for (var c = 0u; c < params.width; c++) {
    sums += exp((vec2f(logits[first + c], targets[first + c]) - highest) * params.sharpness);
  }
  let normal = highest * params.sharpness + log(sums);
  var loss = 0.0;
  for (var c = 0u; c < params.width; c++) {
    let log_shares = vec2f(logits[first + c], targets[first + c]) * params.sharpness - normal;
    let shares = exp(log_shares);
    loss = fma(shares.y, log_shares.y - log_shares.x, loss);
    gradient[first + c] = factors[i] * params.sharpness * (shares.x - shares.y);
  }
  losses[i] = factors[i] * loss;`,
  workgroup: {
    lanes: GROUP,
    shared: `var<workgroup> parts: array<vec2f, ${GROUP}>;`,
    bytesPerLane: 8,
    code: /* wgsl */ `
  let first = i * params.width;
  var own = vec2f(-3e38);
  for (var c = lane; c < params.width; c += ${GROUP}u) {
    own = max(own, vec2f(logits[first + c], targets[first + c]));
  }
  ${reduced("own", (left, right) => `max(${left}, ${right})`)}
  let highest = parts[0];
  own = vec2f();
  for (var c = lane; c < params.width; c += ${GROUP}u) {
    own += exp((vec2f(logits[first + c], targets[first + c]) - highest) * params.sharpness);
  }
  ${reduced("own")}
  let normal = highest * params.sharpness + log(parts[0]);
  var loss = 0.0;
  for (var c = lane; c < params.width; c += ${GROUP}u) {
    let log_shares = vec2f(logits[first + c], targets[first + c]) * params.sharpness - normal;
    let shares = exp(log_shares);
    loss = fma(shares.y, log_shares.y - log_shares.x, loss);
    gradient[first + c] = factors[i] * params.sharpness * (shares.x - shares.y);
  }
  ${reduced("vec2f(loss, 0.0)")}
  if (lane == 0u) { losses[i] = factors[i] * parts[0].x; }`,
  },
});

function check(logits: Tensor, targets: Tensor, factors: Tensor): readonly [rows: number, width: number] {
  const [rows, width] = matrixShape(logits, "divergence");
  requireShape(targets, logits.shape, "targets", "divergence");
  requireShape(factors, [rows], "factors", "divergence");
  return [rows, width];
}

/** Queues one variant, whatever the device's class; the operation chooses between them. */
export function dispatchDivergence(
  device: GpuDevice,
  grain: Grain,
  logits: Tensor,
  targets: Tensor,
  factors: Tensor,
  temperature: number,
): Divergence {
  const [rows, width] = check(logits, targets, factors);
  const result = { losses: device.empty([rows]), gradient: device.empty(logits.shape) };
  dispatchRows(device, kernels, grain, [logits, targets, factors, result.losses, result.gradient], [
    rows,
    width,
    1 / temperature,
  ]);
  return result;
}

/** Logarithms of softmax(values / temperature). */
function logShares(values: Float64Array, temperature: number): Float64Array {
  const highest = values.reduce((above, value) => Math.max(above, value), -Infinity);
  const sum = values.reduce((total, value) => total + Math.exp((value - highest) / temperature), 0);
  return values.map((value) => (value - highest) / temperature - Math.log(sum));
}

/**
 * Kullback-Leibler divergence of two softmax distributions, row by row: factor · Σ_v p_v log(p_v / q_v) with
 * p = softmax(targets / temperature), q = softmax(logits / temperature), and its gradient factor · (q − p) / temperature at the logits.
 *
 * @param logits `[rows, vocabulary]`
 * @param targets `[rows, vocabulary]`
 * @param factors `[rows]`
 */
export const divergence: (
  logits: Tensor,
  targets: Tensor,
  factors: Tensor,
  temperature: number,
) => Divergence = defineOperation<[Tensor, Tensor, Tensor, number], Divergence>({
  name: "divergence",
  kernels: Object.values(kernels),
  gpu: (device, ...args) => dispatchDivergence(device, grainOf(device), ...args),
  cpu(device, logits, targets, factors, temperature) {
    const [rows, width] = check(logits, targets, factors);
    const result = { losses: device.zeros([rows]), gradient: device.zeros(logits.shape) };
    for (let row = 0; row < rows; row++) {
      const run = (tensor: Tensor) => (tensor as CpuTensor).floats.subarray(row * width, (row + 1) * width);
      const factor = (factors as CpuTensor).floats[row]!;
      const own = logShares(run(logits), temperature), wanted = logShares(run(targets), temperature);
      const gradient = run(result.gradient);
      wanted.forEach((target, c) => {
        result.losses.floats[row]! += factor * Math.exp(target) * (target - own[c]!);
        gradient[c] = factor * (Math.exp(own[c]!) - Math.exp(target)) / temperature;
      });
    }
    return result;
  },
});
