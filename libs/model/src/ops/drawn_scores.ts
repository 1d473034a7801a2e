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
  name: "drawn_scores",
  buffers: [
    { name: "logits", element: "f32", access: "read" },
    { name: "draws", element: "f32", access: "read" },
    { name: "result", element: "f32", access: "read_write" },
  ],
  params: [["sharpness", "f32"]],
  invocation: /* wgsl */ `
  let first = i * params.width;
  var highest = -3e38;
  for (var c = 0u; c < params.width; c++) { highest = max(highest, logits[first + c]); }
  var sum = 0.0;
  for (var c = 0u; c < params.width; c++) { sum += exp((logits[first + c] - highest) * params.sharpness); }
  let wanted = draws[i] * sum;
  var passed = 0.0;
  var drawn = params.width - 1u;
  for (var c = 0u; c < params.width; c++) {
    let raised = exp((logits[first + c] - highest) * params.sharpness);
    if (passed <= wanted && wanted < passed + raised) { drawn = c; }
    passed += raised;
    result[first + c] = -raised / sum;
  }
  result[first + drawn] += 1.0;`,
  // Every lane takes a stretch of neighbouring columns, so that the lanes' sums are those of consecutive stretches.
  workgroup: {
    lanes: GROUP,
    shared: `
var<workgroup> parts: array<f32, ${GROUP}>;
var<workgroup> before: f32;
var<workgroup> total: f32;
var<workgroup> owner: u32;`,
    bytesPerLane: 4,
    bytesBeside: 12,
    code: /* wgsl */ `
  let first = i * params.width;
  let stretch = (params.width + ${GROUP - 1}u) / ${GROUP}u;
  let start = min(lane * stretch, params.width);
  let end = min(start + stretch, params.width);
  var largest = -3e38;
  for (var c = start; c < end; c++) { largest = max(largest, logits[first + c]); }
  parts[lane] = largest;
  ${reduceLanes("parts", GROUP, (left, right) => `max(${left}, ${right})`)}
  let highest = parts[0];
  workgroupBarrier();
  var own = 0.0;
  for (var c = start; c < end; c++) { own += exp((logits[first + c] - highest) * params.sharpness); }
  parts[lane] = own;
  workgroupBarrier();
  if (lane == 0u) {
    var sum = 0.0;
    for (var l = 0u; l < ${GROUP}u; l++) { sum += parts[l]; }
    let wanted = draws[i] * sum;
    var passed = 0.0;
    // The last stretch that is not empty takes what rounding leaves over.
    owner = (params.width - 1u) / stretch;
    for (var l = 0u; l < ${GROUP}u; l++) {
      if (passed + parts[l] > wanted) { owner = l; break; }
      if (l < owner) { passed += parts[l]; }
    }
    before = passed;
    total = sum;
  }
  workgroupBarrier();
  let wanted = draws[i] * total;
  var passed = before;
  var drawn = end - 1u;
  var found = false;
  for (var c = start; c < end; c++) {
    let raised = exp((logits[first + c] - highest) * params.sharpness);
    passed += raised;
    if (!found && passed > wanted) { drawn = c; found = true; }
    result[first + c] = -raised / total;
  }
  if (lane == owner) { result[first + drawn] += 1.0; }`,
  },
});

function check(logits: Tensor, draws: Tensor): readonly [rows: number, width: number] {
  const [rows, width] = matrixShape(logits, "drawn_scores");
  requireShape(draws, [rows], "draws", "drawn_scores");
  return [rows, width];
}

/** Queues one variant, whatever the device's class; the operation chooses between them. */
export function dispatchDrawnScores(
  device: GpuDevice,
  grain: Grain,
  logits: Tensor,
  draws: Tensor,
  temperature: number,
): Tensor {
  const [rows, width] = check(logits, draws);
  const result = device.empty(logits.shape);
  dispatchRows(device, kernels, grain, [logits, draws, result], [rows, width, 1 / temperature]);
  return result;
}

/**
 * Draws a column y of every row from p = softmax(logits / temperature) and gives e_y − p: temperature times the gradient of log p_y at
 * the logits.
 *
 * @param logits `[rows, vocabulary]`
 * @param draws `[rows]`: numbers in [0, 1) that decide; the column whose share of the running sum holds the number is drawn
 */
export const drawnScores: (logits: Tensor, draws: Tensor, temperature: number) => Tensor = defineOperation<
  [Tensor, Tensor, number],
  Tensor
>({
  name: "drawn_scores",
  kernels: Object.values(kernels),
  gpu: (device, ...args) => dispatchDrawnScores(device, grainOf(device), ...args),
  cpu(device, logits, draws, temperature) {
    const [rows, width] = check(logits, draws);
    const result = device.zeros(logits.shape);
    for (let row = 0; row < rows; row++) {
      const values = (logits as CpuTensor).floats.subarray(row * width, (row + 1) * width);
      const highest = values.reduce((above, value) => Math.max(above, value), -Infinity);
      const raised = values.map((value) => Math.exp((value - highest) / temperature));
      const sum = raised.reduce((total, value) => total + value, 0);
      let left = (draws as CpuTensor).floats[row]! * sum;
      const found = raised.findIndex((value) => (left -= value) < 0);
      raised.forEach((value, c) => result.floats[row * width + c] = -value / sum);
      result.floats[row * width + (found < 0 ? width - 1 : found)]! += 1;
    }
    return result;
  },
});
