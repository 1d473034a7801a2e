import type { Kernel } from "../gpu/kernel.ts";
import {
  forEachOfTile,
  stageTile,
  TILE_REQUIREMENTS,
  tileMemory,
  type TileSource,
  TRANSPOSED_TILE,
} from "./transposed_tile.ts";

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
export const TRANSPOSE_TILE = TRANSPOSED_TILE;

const SOURCE: TileSource = {
  buffer: "x",
  element: "u32",
  base: "baseX",
  stride: "strideX",
  rows: "rows",
  columns: "columns",
};

/** Through a tile in workgroup memory, so that reads and writes both run along rows. */
export const TRANSPOSE_TILED: Kernel = {
  name: "transpose_tiled",
  buffers: BUFFERS,
  params: PARAMS,
  requires: TILE_REQUIREMENTS,
  code: /* wgsl */ `
${tileMemory(SOURCE)}

@compute @workgroup_size(${TRANSPOSE_TILE}, 8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = group.y * ${TRANSPOSE_TILE}u;
  let column = group.x * ${TRANSPOSE_TILE}u;
  ${stageTile(SOURCE)}
  if (row + local.x >= params.rows) { return; }
  let start = params.baseOut + row + local.x;
  ${forEachOfTile("if (line < params.columns) { out[start + line * params.strideOut] = value; }")}
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
