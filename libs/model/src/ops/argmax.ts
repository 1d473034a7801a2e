import { type CpuTensor, defineOperation, type GpuDevice, matrixShape, type Tensor } from "@lora-loom/tensor";
import { type Grain, grainOf } from "./grid.ts";
import { dispatchRows, rowKernels } from "./row_kernels.ts";

const GROUP = 256;

const kernels = rowKernels({
  name: "argmax",
  buffers: [
    { name: "x", element: "f32", access: "read" },
    { name: "result", element: "u32", access: "read_write" },
  ],
  invocation: /* wgsl */ `
  var best = x[i * params.width];
  var at = 0u;
  for (var c = 1u; c < params.width; c++) {
    let value = x[i * params.width + c];
    if (value > best) { best = value; at = c; }
  }
  result[i] = at;`,
  workgroup: {
    lanes: GROUP,
    shared: `
var<workgroup> values: array<f32, ${GROUP}>;
var<workgroup> places: array<u32, ${GROUP}>;`,
    bytesPerLane: 8,
    code: /* wgsl */ `
  // Lanes past the end of a narrow row repeat its first element, which never wins over the real one.
  var at = select(0u, lane, lane < params.width);
  var best = x[i * params.width + at];
  for (var c = lane + ${GROUP}u; c < params.width; c += ${GROUP}u) {
    let value = x[i * params.width + c];
    if (value > best) { best = value; at = c; }
  }
  values[lane] = best;
  places[lane] = at;
  for (var half = ${GROUP / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      let value = values[lane + half];
      let place = places[lane + half];
      if (value > values[lane] || (value == values[lane] && place < places[lane])) {
        values[lane] = value;
        places[lane] = place;
      }
    }
  }
  if (lane == 0u) { result[i] = places[0]; }`,
  },
});

/** Queues one variant, whatever the device's class; the operation chooses between them. */
export function dispatchArgmax(device: GpuDevice, grain: Grain, x: Tensor): Tensor {
  const [rows, width] = matrixShape(x, "argmax");
  const result = device.empty([rows], "u32");
  dispatchRows(device, kernels, grain, [x, result], [rows, width]);
  return result;
}

/** The column of each row's largest element, the first of equals: `[rows, width] → u32 [rows]`. */
export const argmax: (x: Tensor) => Tensor = defineOperation<[Tensor], Tensor>({
  name: "argmax",
  kernels: Object.values(kernels),
  gpu: (device, x) => dispatchArgmax(device, grainOf(device), x),
  cpu(device, x) {
    const [rows, width] = matrixShape(x, "argmax");
    const places = new Uint32Array(rows);
    for (let row = 0; row < rows; row++) {
      const values = (x as CpuTensor).floats.subarray(row * width, (row + 1) * width);
      places[row] = values.reduce((best, value, c) => value > values[best]! ? c : best, 0);
    }
    return device.wrap(places, [rows]);
  },
});
