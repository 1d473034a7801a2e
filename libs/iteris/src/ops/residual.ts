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

/** Rows per invocation: the split of a matrix element serves them all. */
const ROWS = 4;
const WORKGROUP = 64;

function perRow(line: (row: number) => string): string {
  return Array.from({ length: ROWS }, (_, row) => line(row)).join("\n");
}

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
/** high + mid + low: what the f32 sum misses, and what the sum of those misses. */
struct Sum { high: f32, mid: f32, low: f32 }

/** Adds x·g. Of the four products of heads and tails the first three are exact, as are the sums they go into. */
fn accumulate(sum: Sum, x: f32, x_low: f32, g: f32, g_head: f32, g_tail: f32) -> Sum {
  let x_head = head(x);
  let x_tail = x - x_head;
  let first = two_sum(sum.high, x_head * g_head);
  let second = two_sum(sum.mid, x_head * g_tail);
  let third = two_sum(second.high, x_tail * g_head);
  let fourth = two_sum(third.high, first.low);
  let rest = second.low + third.low + (fourth.low + (x_tail * g_tail + x_low * g));
  return Sum(first.high, fourth.high, sum.low + rest);
}

@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x;
  let first = id.y * ${ROWS}u;
  if (column >= params.n) { return; }
  ${
    perRow((row) => `
  var sum${row} = Sum(0.0, 0.0, 0.0);
  let row${row} = min(first + ${row}u, params.m - 1u) * params.n;`)
  }
  for (var k = 0u; k < params.n; k++) {
    let g = matrix[k * params.n + column];
    let g_head = head(g);
    let g_tail = g - g_head;
    ${
    perRow((row) => `
    sum${row} = accumulate(sum${row}, high[row${row} + k], low[row${row} + k], g, g_head, g_tail);`)
  }
  }
  let d = diagonal[column];
  let d_head = head(d);
  let d_tail = d - d_head;
  ${
    perRow((row) => `
  sum${row} = accumulate(sum${row}, high[row${row} + column], low[row${row} + column], d, d_head, d_tail);
  if (first + ${row}u < params.m) {
    let rest${row} = two_sum(target_rows[row${row} + column], -sum${row}.high);
    let less${row} = two_sum(rest${row}.high, -sum${row}.mid);
    result[row${row} + column] = less${row}.high + (less${row}.low + (rest${row}.low - sum${row}.low));
  }`)
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
    const workgroups = [Math.ceil(n / WORKGROUP), Math.ceil(m / ROWS)] as const;
    device.dispatch(RESIDUAL, [target, high, low, matrix, diagonal, result], [m, n, 0], workgroups);
    return result;
  },
  cpu(device, target, high, low, matrix, diagonal) {
    const lows = (low as CpuTensor).floats;
    using x = device.wrap((high as CpuTensor).floats.map((value, i) => value + lows[i]!), high.shape);
    return plainResidual(target, x, { matrix, diagonal });
  },
});
