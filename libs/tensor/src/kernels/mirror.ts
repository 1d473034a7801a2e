import type { Kernel } from "../gpu/kernel.ts";

/** What lies below the diagonal of a square is copied above it. */
export const MIRROR_DIAGONAL: Kernel = {
  name: "mirror_diagonal",
  buffers: [{ name: "c", element: "f32", access: "read_write" }],
  params: [["size", "u32"], ["stride", "u32"], ["base", "u32"]],
  code: /* wgsl */ `
@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.y >= params.size || id.x >= id.y) { return; }
  c[params.base + id.x * params.stride + id.y] = c[params.base + id.y * params.stride + id.x];
}`,
};
