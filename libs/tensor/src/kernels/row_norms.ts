import type { Kernel } from "../gpu/kernel.ts";
import { MAGNITUDE, MAX, REDUCE_WORKGROUP, reduceTree, SCALING, SUM } from "./reduce.ts";

/**
 * What works on a row: a workgroup, or one invocation, which is what drivers want that run invocations as SIMD lanes of a CPU: they take
 * long to compile barriers.
 */
export type RowGrain = "workgroup" | "invocation";

/** Rows that a workgroup of {@linkcode rowNormKernel} covers. */
export const ROWS_PER_WORKGROUP: Readonly<Record<RowGrain, number>> = { workgroup: 1, invocation: 8 };

/** Elements that one sum of squares takes where an invocation works alone. */
const RUN = 128;

/** The norm of each row of a matrix, `[rows, columns] → [rows]`; of `inf` as the bits of the largest magnitude. */
export function rowNormKernel(norm: "l2" | "inf", grain: RowGrain): Kernel {
  const alone = grain === "invocation";
  const lanes = alone ? ROWS_PER_WORKGROUP.invocation : REDUCE_WORKGROUP;
  const row = "group.x + group.y * groups.x";
  const elements = alone
    ? "for (var i = 0u; i < params.columns; i++)"
    : `for (var i = lane; i < params.columns; i += ${REDUCE_WORKGROUP}u)`;
  const square = "let value = bitcast<f32>(x[start + i]) * down;";
  // Alone, an invocation adds up runs, so that the error does not grow with the whole row.
  const squares = alone
    ? /* wgsl */ `
  for (var run = 0u; run < params.columns; run += ${RUN}u) {
    var part = 0.0;
    for (var i = run; i < min(run + ${RUN}u, params.columns); i++) { ${square} part += value * value; }
    sum += part;
  }`
    : `${elements} { ${square} sum += value * value; }`;
  /** Brings what the lanes of a row found together; the first lane has the result. */
  const together = (shared: string, found: string, combine: (a: string, b: string) => string) =>
    alone ? "" : /* wgsl */ `
  ${shared}[lane] = ${found};
  workgroupBarrier();
  ${reduceTree(shared, "params.columns", combine)}
  ${found} = ${shared}[0];`;
  const store = (value: string) =>
    `${alone ? "" : "if (lane == 0u) "}{ out[params.rowStart + row] = ${value}; }`;
  const l2 = /* wgsl */ `
  let exponent = exponentOf(most);
  let down = scaleDown(exponent);
  var sum = 0.0;
  ${squares}
  ${together("sums", "sum", SUM)}
  ${store("sqrt(sum) * scaleUp(exponent)")}`;
  return {
    name: `row_norm_${norm}_${grain}_per_row`,
    buffers: [
      { name: "x", element: "u32", access: "read" },
      { name: "out", element: norm === "inf" ? "u32" : "f32", access: "read_write" },
    ],
    params: [["rows", "u32"], ["columns", "u32"], ["base", "u32"], ["rowStart", "u32"]],
    code: /* wgsl */ `
${alone ? "" : `var<workgroup> largest: array<u32, ${REDUCE_WORKGROUP}>;`}
${alone || norm === "inf" ? "" : `var<workgroup> sums: array<f32, ${REDUCE_WORKGROUP}>;`}
${MAGNITUDE}
${norm === "l2" ? SCALING : ""}
@compute @workgroup_size(${lanes})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = ${alone ? `(${row}) * ${lanes}u + lane` : row};
  if (row >= params.rows) { return; }
  let start = params.base + row * params.columns;
  var most = 0u;
  ${elements} { most = max(most, magnitude(x[start + i])); }
  ${together("largest", "most", MAX)}
  ${norm === "l2" ? l2 : store("most")}
}`,
  };
}
