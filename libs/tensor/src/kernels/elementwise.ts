import type { Kernel } from "../gpu/kernel.ts";

/** A binary elementwise operation on vec4s: one kernel with a separate result, one that writes over its first operand. */
export interface ElementwiseKernels {
  readonly apart: Kernel;
  readonly inPlace: Kernel;
}

/** Invocations of a workgroup, and vec4s that it covers. */
export const ELEMENTWISE_WORKGROUP = 64;

const PARAMS: Kernel["params"] = [["vectors", "u32"], ["alpha", "f32"], ["beta", "f32"]];

/** @param expression WGSL of the result from `u` and `v`, a vec4f of each operand, and `params.alpha`, `params.beta` */
export function elementwiseKernels(name: string, expression: string): ElementwiseKernels {
  const code = (first: string, result: string) => /* wgsl */ `
@compute @workgroup_size(${ELEMENTWISE_WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.x + id.y * groups.x * ${ELEMENTWISE_WORKGROUP}u;
  if (i >= params.vectors) { return; }
  let u = ${first}[i];
  let v = y[i];
  ${result}[i] = ${expression};
}`;
  return {
    apart: {
      name,
      buffers: [
        { name: "x", element: "vec4f", access: "read" },
        { name: "y", element: "vec4f", access: "read" },
        { name: "out", element: "vec4f", access: "read_write" },
      ],
      params: PARAMS,
      code: code("x", "out"),
    },
    inPlace: {
      name: `${name}_in_place`,
      buffers: [
        { name: "x", element: "vec4f", access: "read_write" },
        { name: "y", element: "vec4f", access: "read" },
      ],
      params: PARAMS,
      code: code("x", "x"),
    },
  };
}
