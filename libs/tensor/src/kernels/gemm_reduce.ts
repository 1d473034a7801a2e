import type { Kernel } from "../gpu/kernel.ts";

/** Adds up the slices that a product split along its inner index left: C = alpha · Σ partial + beta · C. */
export const GEMM_REDUCE: Kernel = {
  name: "gemm_reduce",
  buffers: [
    { name: "partial", element: "f32", access: "read" },
    { name: "c", element: "f32", access: "read_write" },
  ],
  params: [
    ["m", "u32"],
    ["n", "u32"],
    ["slices", "u32"],
    ["strideC", "u32"],
    ["baseC", "u32"],
    ["lowerOnly", "u32"],
    ["alpha", "f32"],
    ["beta", "f32"],
  ],
  code: /* wgsl */ `
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let index = id.x + id.y * groups.x * 64u;
  let row = index / params.n;
  let column = index % params.n;
  if (row >= params.m || (params.lowerOnly != 0u && column > row)) { return; }
  var sum = 0.0;
  for (var slice = 0u; slice < params.slices; slice++) {
    sum += partial[slice * params.m * params.n + index];
  }
  let at = params.baseC + row * params.strideC + column;
  if (params.beta == 0.0) { c[at] = params.alpha * sum; }
  else { c[at] = params.alpha * sum + params.beta * c[at]; }
}`,
};
