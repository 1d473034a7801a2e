import { type CpuTensor, defineOperation, gemm, type Kernel, type Tensor } from "@lora-loom/tensor";
import { ERROR_FREE } from "./error_free.ts";

/** Rows per invocation: the split of a matrix element serves them all. */
const ROWS = 4;
const WORKGROUP = 64;

function perRow(line: (row: number) => string): string {
  return Array.from({ length: ROWS }, (_, row) => line(row)).join("\n");
}

const RESIDUAL: Kernel = {
  name: "iteris_residual",
  buffers: [
    { name: "target_rows", element: "f32", access: "read" },
    { name: "high", element: "f32", access: "read" },
    { name: "low", element: "f32", access: "read" },
    { name: "matrix", element: "f32", access: "read" },
    { name: "result", element: "f32", access: "read_write" },
  ],
  params: [["m", "u32"], ["n", "u32"], ["zero", "u32"]],
  code: /* wgsl */ `
${ERROR_FREE}
/** Adds x·g to a sum: the product of the heads without error, the rest, 2⁻¹² times smaller, in f32. */
fn accumulate(sum: Pair, x: f32, x_low: f32, g_head: f32, g_tail: f32) -> Pair {
  let x_head = head(x);
  let x_tail = x - x_head;
  let next = two_sum(sum.high, x_head * g_head);
  let rest = x_head * g_tail + (x_tail * g_head + (x_tail * g_tail + x_low * g_head));
  return Pair(next.high, sum.low + (next.low + rest));
}

@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x;
  let first = id.y * ${ROWS}u;
  if (column >= params.n) { return; }
  ${
    perRow((row) => `
  var sum${row} = Pair(0.0, 0.0);
  let row${row} = min(first + ${row}u, params.m - 1u) * params.n;`)
  }
  for (var k = 0u; k < params.n; k++) {
    let g = matrix[k * params.n + column];
    let g_head = head(g);
    let g_tail = g - g_head;
    ${
    perRow((row) => `
    sum${row} = accumulate(sum${row}, high[row${row} + k], low[row${row} + k], g_head, g_tail);`)
  }
  }
  ${
    perRow((row) => `
  if (first + ${row}u < params.m) {
    let rest${row} = two_sum(target_rows[row${row} + column], -sum${row}.high);
    result[row${row} + column] = rest${row}.high + (rest${row}.low - sum${row}.low);
  }`)
  }
}`,
};

/**
 * target − (high + low)·matrix, `[m, n]` for a square matrix `[n, n]`, with about 36 bits in the sums: accurate although nearly
 * everything cancels. `high + low` is a matrix in twice the usual precision.
 */
export const residual: (target: Tensor, high: Tensor, low: Tensor, matrix: Tensor) => Tensor =
  defineOperation<
    [Tensor, Tensor, Tensor, Tensor],
    Tensor
  >({
    name: "iteris_residual",
    kernels: [RESIDUAL],
    gpu(device, target, high, low, matrix) {
      const [m, n] = target.shape as [number, number];
      const result = device.empty([m, n]);
      const workgroups = [Math.ceil(n / WORKGROUP), Math.ceil(m / ROWS)] as const;
      device.dispatch(RESIDUAL, [target, high, low, matrix, result], [m, n, 0], workgroups);
      return result;
    },
    cpu(device, target, high, low, matrix) {
      const lows = (low as CpuTensor).floats;
      using x = device.wrap((high as CpuTensor).floats.map((value, i) => value + lows[i]!), high.shape);
      const result = device.wrap((target as CpuTensor).floats.slice(), target.shape);
      return gemm(x, matrix, { alpha: -1, beta: 1, into: result });
    },
  });
