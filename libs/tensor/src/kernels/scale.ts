import type { Kernel } from "../gpu/kernel.ts";

/** Kernels that multiply the rows or the columns of a matrix by factors, apart or in place. */
export function scaleKernel(axis: "rows" | "columns", inPlace: boolean): Kernel {
  const factor = axis === "rows" ? "params.rowStart + i / params.columns" : "i % params.columns";
  const result = inPlace ? "x" : "out";
  return {
    name: `scale_${axis}${inPlace ? "_in_place" : ""}`,
    buffers: [
      { name: "x", element: "f32", access: inPlace ? "read_write" : "read" },
      { name: "factors", element: "f32", access: "read" },
      ...inPlace ? [] : [{ name: "out", element: "f32", access: "read_write" } as const],
    ],
    params: [["count", "u32"], ["columns", "u32"], ["rowStart", "u32"], ["base", "u32"]],
    code: /* wgsl */ `
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.x + id.y * groups.x * 64u;
  if (i >= params.count) { return; }
  ${result}[params.base + i] = x[params.base + i] * factors[${factor}];
}`,
  };
}
