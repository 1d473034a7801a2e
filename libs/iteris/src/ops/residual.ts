import {
  add,
  type CpuTensor,
  defineOperation,
  ERROR_FREE,
  gemm,
  type Kernel,
  preciseResidual,
  scaleColumns,
  type Tensor,
} from "@lora-loom/tensor";

const WORKGROUP = 64;
/** Rows and columns per invocation, which splits and loads an operand's element once for two results; the columns are a workgroup apart. */
const ROWS = 2;
const COLUMNS = 2;

/** For drivers that run on the CPU; hardware is served better by workgroup memory. */
const RESIDUAL: Kernel = {
  name: "iteris_residual",
  buffers: [
    { name: "target_rows", element: "f32", access: "read" },
    { name: "high", element: "f32", access: "read" },
    { name: "low", element: "f32", access: "read" },
    { name: "matrix", element: "f32", access: "read" },
    { name: "diagonal", element: "f32", access: "read" },
    { name: "result", element: "f32", access: "read_write" },
  ],
  params: [["m", "u32"], ["n", "u32"], ["zero", "u32"]],
  code: /* wgsl */ `
${ERROR_FREE}
/** high + mid + low of four results: what the f32 sum misses, and what the sum of those misses. */
struct Sum { high: vec4f, mid: vec4f, low: vec4f }

/** Adds x·g. Of the four products of heads and tails the first three are exact, as are the sums they go into. */
fn accumulate(sum: Sum, x: vec4f, x_low: vec4f, g: vec4f) -> Sum {
  let g_head = head4(g);
  let g_tail = g - g_head;
  let x_head = head4(x);
  let x_tail = x - x_head;
  let first = two_sum4(sum.high, x_head * g_head);
  let second = two_sum4(sum.mid, x_head * g_tail);
  let third = two_sum4(second.high, x_tail * g_head);
  let fourth = two_sum4(third.high, first.low);
  let rest = second.low + third.low + (fourth.low + (x_tail * g_tail + x_low * g));
  return Sum(first.high, fourth.high, sum.low + rest);
}

@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let column = group.x * ${COLUMNS * WORKGROUP}u + lane;
  let row = group.y * ${ROWS}u;
  if (column >= params.n) { return; }
  let columns = min(vec2u(column, column + ${WORKGROUP}u), vec2u(params.n - 1u));
  let rows = min(vec2u(row, row + 1u), vec2u(params.m - 1u)) * params.n;
  var sum = Sum(vec4f(0.0), vec4f(0.0), vec4f(0.0));
  // After the matrix's rows come those of the diagonal matrix, in the same loop: software drivers take long to compile a load.
  for (var k = 0u; k < params.n + ${COLUMNS}u; k++) {
    var inner = k;
    var g: vec2f;
    if (k < params.n) {
      g = vec2f(matrix[k * params.n + columns.x], matrix[k * params.n + columns.y]);
    } else {
      inner = select(columns.y, columns.x, k == params.n);
      g = select(vec2f(0.0, diagonal[inner]), vec2f(diagonal[inner], 0.0), k == params.n);
    }
    let at = rows + inner;
    let x = vec2f(high[at.x], high[at.y]);
    let x_low = vec2f(low[at.x], low[at.y]);
    sum = accumulate(sum, x.xxyy, x_low.xxyy, g.xyxy);
  }
  for (var i = 0u; i < min(${ROWS}u, params.m - row) * ${COLUMNS}u; i++) {
    let to = column + (i % ${COLUMNS}u) * ${WORKGROUP}u;
    if (to >= params.n) { continue; }
    let at = (row + i / ${COLUMNS}u) * params.n + to;
    let rest = two_sum(target_rows[at], -sum.high[i]);
    let less = two_sum(rest.high, -sum.mid[i]);
    result[at] = less.high + (less.low + (rest.low - sum.low[i]));
  }
}`,
};

/** A linear map of rows, X ↦ X (M + diag(d)) with a symmetric positive semidefinite M. The diagonal is apart, so that a small one is not lost in the rounding of M. */
export interface RowMap {
  /** M, `[n, n]`. */
  readonly matrix: Tensor;
  /** d, `[n]`. */
  readonly diagonal: Tensor;
}

/**
 * target − (high + low)·(M + diag(d)), `[m, n]`, with about 45 bits in the sums: accurate although nearly everything cancels.
 * `high + low` is a matrix in twice the usual precision.
 */
export function residual(target: Tensor, high: Tensor, low: Tensor, { matrix, diagonal }: RowMap): Tensor {
  return operation(target, high, low, matrix, diagonal);
}

/** target − x·(M + diag(d)), `[m, n]`, in the device's usual precision. */
export function plainResidual(target: Tensor, x: Tensor, { matrix, diagonal }: RowMap): Tensor {
  const result = scaleColumns(x, diagonal);
  add(target, result, { beta: -1, into: result });
  return gemm(x, matrix, { alpha: -1, beta: 1, into: result });
}

const operation = defineOperation<[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor>({
  name: "iteris_residual",
  kernels: [RESIDUAL],
  gpu(device, target, high, low, matrix, diagonal) {
    if (device.info.class !== "software") return preciseResidual(target, high, low, { matrix, diagonal });
    const [m, n] = target.shape as [number, number];
    const result = device.empty([m, n]);
    const workgroups = [Math.ceil(n / (COLUMNS * WORKGROUP)), Math.ceil(m / ROWS)] as const;
    device.dispatch(RESIDUAL, [target, high, low, matrix, diagonal, result], [m, n, 0], workgroups);
    return result;
  },
  cpu(device, target, high, low, matrix, diagonal) {
    const lows = (low as CpuTensor).floats;
    using x = device.wrap((high as CpuTensor).floats.map((value, i) => value + lows[i]!), high.shape);
    return plainResidual(target, x, { matrix, diagonal });
  },
});
