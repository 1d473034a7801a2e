import type { Kernel } from "../gpu/kernel.ts";
import { MAX, REDUCE_WORKGROUP, reduceTree, SUM } from "./reduce.ts";

/**
 * Workgroups stride over all elements, each leaving one partial result: the largest magnitude, the sum of squares, or that of the products
 * with the elements of another tensor.
 */
export function flatReduceKernel(kind: "largest" | "squares" | "products"): Kernel {
  const step = {
    largest: "result = max(result, bits & 0x7fffffffu);",
    squares: "let value = bitcast<f32>(bits); result += value * value;",
    products: "result += bitcast<f32>(bits) * y[i];",
  }[kind];
  return {
    name: `flat_${kind}`,
    buffers: [
      { name: "x", element: "u32", access: "read" },
      ...(kind === "products" ? [{ name: "y", element: "f32", access: "read" } as const] : []),
      { name: "partial", element: kind === "largest" ? "u32" : "f32", access: "read_write" },
    ],
    params: [["count", "u32"], ["first", "u32"]],
    code: /* wgsl */ `
var<workgroup> results: array<${kind === "largest" ? "u32" : "f32"}, ${REDUCE_WORKGROUP}>;
@compute @workgroup_size(${REDUCE_WORKGROUP})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  var result = ${kind === "largest" ? "0u" : "0.0"};
  for (var i = group.x * ${REDUCE_WORKGROUP}u + lane; i < params.count; i += groups.x * ${REDUCE_WORKGROUP}u) {
    let bits = x[i];
    ${step}
  }
  results[lane] = result;
  workgroupBarrier();
  ${reduceTree("results", "params.count", kind === "largest" ? MAX : SUM)}
  if (lane == 0u) { partial[params.first + group.x] = results[0]; }
}`,
  };
}

/** Adds up partial sums, by one workgroup. */
export const SUM_OF_PARTIALS: Kernel = {
  name: "sum_of_partials",
  buffers: [
    { name: "partial", element: "f32", access: "read" },
    { name: "out", element: "f32", access: "read_write" },
  ],
  params: [["count", "u32"]],
  code: /* wgsl */ `
var<workgroup> results: array<f32, ${REDUCE_WORKGROUP}>;
@compute @workgroup_size(${REDUCE_WORKGROUP})
fn main(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var i = lane; i < params.count; i += ${REDUCE_WORKGROUP}u) { sum += partial[i]; }
  results[lane] = sum;
  workgroupBarrier();
  ${reduceTree("results", "params.count", SUM)}
  if (lane == 0u) { out[0] = results[0]; }
}`,
};
