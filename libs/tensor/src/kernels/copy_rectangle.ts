import type { Kernel } from "../gpu/kernel.ts";

/** Copies rectangles of 32-bit elements between matrices of different strides. */
export const COPY_RECTANGLE: Kernel = {
  name: "copy_rectangle",
  buffers: [
    { name: "x", element: "u32", access: "read" },
    { name: "out", element: "u32", access: "read_write" },
  ],
  params: [
    ["count", "u32"],
    ["columns", "u32"],
    ["strideX", "u32"],
    ["baseX", "u32"],
    ["strideOut", "u32"],
    ["baseOut", "u32"],
    // From one rectangle to the next: the workgroup's z counts them.
    ["batchX", "u32"],
    ["batchOut", "u32"],
  ],
  code: /* wgsl */ `
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.x + id.y * groups.x * 64u;
  if (i >= params.count) { return; }
  let row = i / params.columns;
  let column = i % params.columns;
  let source = params.baseX + id.z * params.batchX + row * params.strideX + column;
  out[params.baseOut + id.z * params.batchOut + row * params.strideOut + column] = x[source];
}`,
};
