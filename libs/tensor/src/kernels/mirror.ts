import type { Kernel } from "../gpu/kernel.ts";
import { lines, range } from "./gemm_interface.ts";

const BUFFERS: Kernel["buffers"] = [{ name: "c", element: "f32", access: "read_write" }];
const PARAMS: Kernel["params"] = [["size", "u32"], ["stride", "u32"], ["base", "u32"]];

/** Rows and columns that a workgroup of {@linkcode MIRROR_DIAGONAL} covers, and of {@linkcode MIRROR_DIAGONAL_TILED}. */
export const MIRROR_BLOCK = 8;
export const MIRROR_TILE = 32;

/** What lies below the diagonal of a square is copied above it; for drivers that run on the CPU. */
export const MIRROR_DIAGONAL: Kernel = {
  name: "mirror_diagonal",
  buffers: BUFFERS,
  params: PARAMS,
  code: /* wgsl */ `
@compute @workgroup_size(${MIRROR_BLOCK}, ${MIRROR_BLOCK})
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.y >= params.size || id.x >= id.y) { return; }
  c[params.base + id.x * params.stride + id.y] = c[params.base + id.y * params.stride + id.x];
}`,
};

const STEPS = range(4).map((step) => 8 * step);

/** The same through a tile in workgroup memory, so that reads and writes both run along rows. */
export const MIRROR_DIAGONAL_TILED: Kernel = {
  name: "mirror_diagonal_tiled",
  buffers: BUFFERS,
  params: PARAMS,
  requires: { workgroupStorageBytes: 32 * 33 * 4, invocationsPerWorkgroup: 256 },
  code: /* wgsl */ `
var<workgroup> tile: array<f32, ${32 * 33}>;

@compute @workgroup_size(32, 8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  if (group.x > group.y) { return; }
  let row = group.y * 32u;
  let column = group.x * 32u;
  let first = params.base + min(column + local.x, params.size - 1u);
  ${
    lines(STEPS.map((step) =>
      `let read${step} = c[first + min(row + local.y + ${step}u, params.size - 1u) * params.stride];`
    ))
  }
  ${lines(STEPS.map((step) => `tile[(local.y + ${step}u) * 33u + local.x] = read${step};`))}
  workgroupBarrier();
  let right = row + local.x;
  if (right >= params.size) { return; }
  ${
    lines(STEPS.map((step) =>
      `{
    let line = column + local.y + ${step}u;
    if (line < right) { c[params.base + line * params.stride + right] = tile[local.x * 33u + local.y + ${step}u]; }
  }`
    ))
  }
}`,
};
