import type { Kernel } from "../gpu/kernel.ts";
import { MAGNITUDE, REDUCE_WORKGROUP, SCALING } from "./reduce.ts";

const COLUMN_SLICE_PARAMS: Kernel["params"] = [
  ["rows", "u32"],
  ["columns", "u32"],
  ["base", "u32"],
  ["rowsPerSlice", "u32"],
  ["firstSlice", "u32"],
];

/** One invocation a column and slice of rows; the slices' results go to `partial`, `[slices, columns]`. */
const columnSlices = (loop: string, start: string, helpers: string) => /* wgsl */ `
${helpers}
@compute @workgroup_size(${REDUCE_WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x;
  if (column >= params.columns) { return; }
  let rowStart = id.y * params.rowsPerSlice;
  let rowEnd = min(rowStart + params.rowsPerSlice, params.rows);
  ${start}
  for (var row = rowStart; row < rowEnd; row++) {
    let bits = x[params.base + row * params.columns + column];
    ${loop}
  }
  partial[(params.firstSlice + id.y) * params.columns + column] = result;
}`;

/** The largest magnitude of each column within each slice of rows, as bits. */
export const COLUMN_LARGEST: Kernel = {
  name: "column_largest",
  buffers: [
    { name: "x", element: "u32", access: "read" },
    { name: "partial", element: "u32", access: "read_write" },
  ],
  params: COLUMN_SLICE_PARAMS,
  code: columnSlices("result = max(result, magnitude(bits));", "var result = 0u;", MAGNITUDE),
};

/** The sum of squares of each column within each slice of rows, scaled by the column's largest magnitude. */
export const COLUMN_SQUARES: Kernel = {
  name: "column_squares",
  buffers: [
    { name: "x", element: "u32", access: "read" },
    { name: "largest", element: "u32", access: "read" },
    { name: "partial", element: "f32", access: "read_write" },
  ],
  params: COLUMN_SLICE_PARAMS,
  code: columnSlices(
    "let value = bitcast<f32>(bits) * down; result += value * value;",
    "let down = scaleDown(exponentOf(largest[column])); var result = 0.0;",
    SCALING,
  ),
};

/** Combines the slices of {@linkcode COLUMN_LARGEST}: `[slices, columns] → [columns]`. */
export const COLUMN_LARGEST_OF_SLICES: Kernel = {
  name: "column_largest_of_slices",
  buffers: [
    { name: "partial", element: "u32", access: "read" },
    { name: "out", element: "u32", access: "read_write" },
  ],
  params: [["slices", "u32"], ["columns", "u32"]],
  code: /* wgsl */ `
@compute @workgroup_size(${REDUCE_WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.columns) { return; }
  var most = 0u;
  for (var slice = 0u; slice < params.slices; slice++) { most = max(most, partial[slice * params.columns + id.x]); }
  out[id.x] = most;
}`,
};

/** Combines the slices of {@linkcode COLUMN_SQUARES} into norms. */
export const COLUMN_ROOT_OF_SLICES: Kernel = {
  name: "column_root_of_slices",
  buffers: [
    { name: "partial", element: "f32", access: "read" },
    { name: "largest", element: "u32", access: "read" },
    { name: "out", element: "f32", access: "read_write" },
  ],
  params: [["slices", "u32"], ["columns", "u32"]],
  code: /* wgsl */ `
${SCALING}
@compute @workgroup_size(${REDUCE_WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.columns) { return; }
  var sum = 0.0;
  for (var slice = 0u; slice < params.slices; slice++) { sum += partial[slice * params.columns + id.x]; }
  out[id.x] = sqrt(sum) * scaleUp(exponentOf(largest[id.x]));
}`,
};
