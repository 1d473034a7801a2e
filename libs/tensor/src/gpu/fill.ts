import type { Kernel } from "./kernel.ts";

/** Sets `count` words to one bit pattern; each invocation strides over the whole range. */
export const FILL: Kernel = {
  name: "fill",
  buffers: [{ name: "out", element: "u32", access: "read_write" }],
  params: [["count", "u32"], ["bits", "u32"]],
  code: /* wgsl */ `
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var i = id.x; i < params.count; i += 64u * groups.x) {
    out[i] = params.bits;
  }
}`,
};
