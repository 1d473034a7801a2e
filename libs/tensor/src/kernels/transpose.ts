import type { Kernel } from "../gpu/kernel.ts";
import { lines, range } from "./gemm_interface.ts";

const BUFFERS: Kernel["buffers"] = [
  { name: "x", element: "u32", access: "read" },
  { name: "out", element: "u32", access: "read_write" },
];

const PARAMS: Kernel["params"] = [
  ["rows", "u32"],
  ["columns", "u32"],
  ["strideX", "u32"],
  ["baseX", "u32"],
  ["strideOut", "u32"],
  ["baseOut", "u32"],
];

/** Rows and columns of `x` that a workgroup of either kernel covers. */
export const TRANSPOSE_TILE = 32;

const STEPS = range(4).map((step) => 8 * step);

/**
 * Through a tile in workgroup memory, so that reads and writes both run along rows. Each invocation has its four reads on their way at
 * once: none waits for a branch.
 */
export const TRANSPOSE_TILED: Kernel = {
  name: "transpose_tiled",
  buffers: BUFFERS,
  params: PARAMS,
  requires: { workgroupStorageBytes: 32 * 33 * 4, invocationsPerWorkgroup: 256 },
  code: /* wgsl */ `
var<workgroup> tile: array<u32, ${32 * 33}>;

@compute @workgroup_size(32, 8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = group.y * 32u;
  let column = group.x * 32u;
  let first = params.baseX + min(column + local.x, params.columns - 1u);
  ${
    lines(STEPS.map((step) =>
      `let read${step} = x[first + min(row + local.y + ${step}u, params.rows - 1u) * params.strideX];`
    ))
  }
  ${lines(STEPS.map((step) => `tile[(local.y + ${step}u) * 33u + local.x] = read${step};`))}
  workgroupBarrier();
  if (row + local.x >= params.rows) { return; }
  let start = params.baseOut + row + local.x;
  ${
    lines(STEPS.map((step) =>
      `{
    let line = column + local.y + ${step}u;
    if (line < params.columns) {
      out[start + line * params.strideOut] = tile[local.x * 33u + local.y + ${step}u];
    }
  }`
    ))
  }
}`,
};

/** Straight from memory to memory, for drivers that run on the CPU. */
export const TRANSPOSE_DIRECT: Kernel = {
  name: "transpose_direct",
  buffers: BUFFERS,
  params: PARAMS,
  code: /* wgsl */ `
@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let column = group.x * 32u + local.x;
  let end = min(group.y * 32u + 32u, params.rows);
  if (column >= params.columns) { return; }
  for (var row = group.y * 32u; row < end; row++) {
    out[params.baseOut + column * params.strideOut + row] = x[params.baseX + row * params.strideX + column];
  }
}`,
};
