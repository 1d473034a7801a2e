import type { Kernel } from "../gpu/kernel.ts";
import {
  forEachOfTile,
  stageTile,
  TILE_REQUIREMENTS,
  tileMemory,
  type TileSource,
  TRANSPOSED_TILE,
} from "./transposed_tile.ts";

const BUFFERS: Kernel["buffers"] = [{ name: "c", element: "f32", access: "read_write" }];
const PARAMS: Kernel["params"] = [["size", "u32"], ["stride", "u32"], ["base", "u32"]];

/** Rows and columns that a workgroup of {@linkcode MIRROR_DIAGONAL} covers, and of {@linkcode MIRROR_DIAGONAL_TILED}. */
export const MIRROR_BLOCK = 8;
export const MIRROR_TILE = TRANSPOSED_TILE;

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

const SOURCE: TileSource = {
  buffer: "c",
  element: "f32",
  base: "base",
  stride: "stride",
  rows: "size",
  columns: "size",
};

/** The same through a tile in workgroup memory, so that reads and writes both run along rows. */
export const MIRROR_DIAGONAL_TILED: Kernel = {
  name: "mirror_diagonal_tiled",
  buffers: BUFFERS,
  params: PARAMS,
  requires: TILE_REQUIREMENTS,
  code: /* wgsl */ `
${tileMemory(SOURCE)}

@compute @workgroup_size(${MIRROR_TILE}, 8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  if (group.x > group.y) { return; }
  let row = group.y * ${MIRROR_TILE}u;
  let column = group.x * ${MIRROR_TILE}u;
  ${stageTile(SOURCE)}
  let right = row + local.x;
  if (right >= params.size) { return; }
  ${forEachOfTile("if (line < right) { c[params.base + line * params.stride + right] = value; }")}
}`,
};
