import type { Kernel } from "../gpu/kernel.ts";

/** Rows and columns of a diagonal block that one invocation factors. */
export const SERIAL_BLOCK = 64;

const N = SERIAL_BLOCK;

const BUFFERS: Kernel["buffers"] = [
  { name: "l", element: "f32", access: "read_write" },
  { name: "inverses", element: "f32", access: "read_write" },
  { name: "pivots", element: "f32", access: "read_write" },
];

const PARAMS: Kernel["params"] = [
  ["size", "u32"],
  ["stride", "u32"],
  ["base", "u32"],
  ["inverseBase", "u32"],
  ["pivotStart", "u32"],
];

/**
 * The root of a pivot, or 1 for one that has none, so that nothing after it overflows; the host finds it in `pivots`. Positive
 * finite numbers are told by their bits, because drivers may assume that there are no others.
 */
export const ROOT = /* wgsl */ `
fn root(pivot: f32) -> f32 {
  let bits = bitcast<u32>(pivot);
  if (bits == 0u || bits >= 0x7f800000u) { return 1.0; }
  let guess = sqrt(pivot);
  // One step of Newton's: drivers' roots are off by some units in the last place.
  return guess + (pivot - guess * guess) / (2.0 * guess);
}
`;

/** Factors one diagonal block and inverts the factor, by a single invocation without workgroup memory: for drivers that run on the CPU. */
export const CHOLESKY_DIAGONAL_SERIAL: Kernel = {
  name: "cholesky_diagonal_serial",
  buffers: BUFFERS,
  params: PARAMS,
  code: /* wgsl */ `
${ROOT}
@compute @workgroup_size(1)
fn main() {
  let size = params.size;
  for (var i = 0u; i < size; i++) {
    let row = params.base + i * params.stride;
    for (var j = 0u; j <= i; j++) {
      let other = params.base + j * params.stride;
      var sum = l[row + j];
      for (var k = 0u; k < j; k++) { sum = fma(-l[row + k], l[other + k], sum); }
      if (i == j) {
        pivots[params.pivotStart + i] = sum;
        l[row + i] = root(sum);
      } else {
        l[row + j] = sum / l[other + j];
      }
    }
  }
  for (var i = 0u; i < size; i++) {
    for (var row = 0u; row < size; row++) {
      var value = 0.0;
      if (row == i) { value = 1.0 / l[params.base + i * params.stride + i]; }
      if (row > i) {
        for (var k = i; k < row; k++) {
          value = fma(-l[params.base + row * params.stride + k], inverses[params.inverseBase + k * ${N}u + i], value);
        }
        value /= l[params.base + row * params.stride + row];
      }
      inverses[params.inverseBase + row * ${N}u + i] = value;
    }
  }
}`,
};

/** Columns and rows that a workgroup of {@linkcode CLEAR_ABOVE_DIAGONAL} covers. */
export const CLEARED_BLOCK = { columns: 64, rows: 32 };

/** Sets what lies above the diagonal to zero, in a run of rows that starts at row `rowStart` of the matrix. */
export const CLEAR_ABOVE_DIAGONAL: Kernel = {
  name: "clear_above_diagonal",
  buffers: [{ name: "l", element: "f32", access: "read_write" }],
  params: [["rows", "u32"], ["columns", "u32"], ["base", "u32"], ["rowStart", "u32"]],
  code: /* wgsl */ `
@compute @workgroup_size(${CLEARED_BLOCK.columns})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let column = group.x * ${CLEARED_BLOCK.columns}u + lane;
  if (column >= params.columns) { return; }
  let start = group.y * ${CLEARED_BLOCK.rows}u;
  let end = min(start + ${CLEARED_BLOCK.rows}u, params.rows);
  for (var row = start; row < end && params.rowStart + row < column; row++) {
    l[params.base + row * params.columns + column] = 0.0;
  }
}`,
};
