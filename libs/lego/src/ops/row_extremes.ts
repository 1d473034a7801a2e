import { type CpuTensor, defineOperation, type Kernel, type Tensor } from "@lora-loom/tensor";

const BUFFERS: Kernel["buffers"] = [
  { name: "x", element: "f32", access: "read" },
  { name: "extremes", element: "f32", access: "read_write" },
];

/** One workgroup a row. */
const TOGETHER: Kernel = {
  name: "lego_row_extremes_workgroup_per_row",
  buffers: BUFFERS,
  params: [["columns", "u32"]],
  code: /* wgsl */ `
var<workgroup> least: array<f32, 64>;
var<workgroup> greatest: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) invocation: vec3u) {
  let lane = invocation.x;
  let start = group.x * params.columns;
  // Lanes beyond a short row repeat its first entry, which changes neither extreme.
  var low = x[start];
  var high = low;
  for (var column = lane; column < params.columns; column += 64u) {
    low = min(low, x[start + column]);
    high = max(high, x[start + column]);
  }
  least[lane] = low;
  greatest[lane] = high;
  for (var half = 32u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      least[lane] = min(least[lane], least[lane + half]);
      greatest[lane] = max(greatest[lane], greatest[lane + half]);
    }
  }
  if (lane == 0u) {
    extremes[group.x * 2u] = least[0];
    extremes[group.x * 2u + 1u] = greatest[0];
  }
}`,
};

const ROWS_PER_WORKGROUP = 8;

/** One invocation a row, for drivers that run on the CPU: they take long to compile barriers. */
const ALONE: Kernel = {
  name: "lego_row_extremes_invocation_per_row",
  buffers: BUFFERS,
  params: [["columns", "u32"], ["rows", "u32"]],
  code: /* wgsl */ `
@compute @workgroup_size(${ROWS_PER_WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.x;
  if (row >= params.rows) { return; }
  let start = row * params.columns;
  var low = x[start];
  var high = low;
  for (var column = 1u; column < params.columns; column++) {
    let value = x[start + column];
    low = min(low, value);
    high = max(high, value);
  }
  extremes[row * 2u] = low;
  extremes[row * 2u + 1u] = high;
}`,
};

/** The least and the greatest entry of each row of a matrix with at least one column: `[rows, columns] → [rows, 2]`. */
export const rowExtremes: (x: Tensor) => Tensor = defineOperation<[Tensor], Tensor>({
  name: "lego.row_extremes",
  kernels: [TOGETHER, ALONE],
  gpu(device, x) {
    const [rows, columns] = x.shape as [number, number];
    const extremes = device.empty([rows, 2]);
    if (device.info.class === "software") {
      device.dispatch(ALONE, [x, extremes], [columns, rows], [Math.ceil(rows / ROWS_PER_WORKGROUP)]);
    } else {
      device.dispatch(TOGETHER, [x, extremes], [columns], [rows]);
    }
    return extremes;
  },
  cpu(device, x) {
    const [rows, columns] = x.shape as [number, number];
    const data = (x as CpuTensor).floats;
    const extremes = new Float64Array(rows * 2);
    for (let i = 0; i < rows; i++) {
      const row = data.subarray(i * columns, (i + 1) * columns);
      extremes[2 * i] = row.reduce((low, value) => Math.min(low, value), Infinity);
      extremes[2 * i + 1] = row.reduce((high, value) => Math.max(high, value), -Infinity);
    }
    return device.wrap(extremes, [rows, 2]);
  },
});
