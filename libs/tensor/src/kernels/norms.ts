import type { Kernel } from "../gpu/kernel.ts";

/** Invocations that reduce together. */
export const REDUCE_WORKGROUP = 64;

/**
 * Magnitudes are compared as bit patterns: for floats without sign their order is that of the values, infinities and NaNs
 * come last and survive, and no driver can optimise the comparison away.
 */
const MAGNITUDE = /* wgsl */ `
fn magnitude(bits: u32) -> u32 { return bits & 0x7fffffffu; }
`;

/** Scaling by a power of two near the largest magnitude keeps squares from overflowing or vanishing. */
const SCALING = /* wgsl */ `
fn exponentOf(largest: u32) -> u32 { return clamp(largest >> 23u, 1u, 253u); }
fn scaleDown(exponent: u32) -> f32 { return bitcast<f32>((254u - exponent) << 23u); }
fn scaleUp(exponent: u32) -> f32 { return bitcast<f32>(exponent << 23u); }
`;

/**
 * Brings what the lanes left in `shared` together, by a tree. Compilers do not know from where `half` starts: software drivers unroll loops with
 * constant bounds, and take long to compile each of the barriers.
 *
 * @param count WGSL: how many numbers there are to reduce; nothing is done where there is none
 */
const TREE = (shared: string, count: string, combine: (a: string, b: string) => string) => /* wgsl */ `
  for (var half = min(${count}, 1u) * ${REDUCE_WORKGROUP / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { ${shared}[lane] = ${combine(`${shared}[lane]`, `${shared}[lane + half]`)}; }
    workgroupBarrier();
  }`;

const MAX = (a: string, b: string) => `max(${a}, ${b})`;
const SUM = (a: string, b: string) => `${a} + ${b}`;

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
  ${TREE(shared, "params.columns", combine)}
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

const COLUMN_SLICE_PARAMS: Kernel["params"] = [
  ["rows", "u32"],
  ["columns", "u32"],
  ["base", "u32"],
  ["rowsPerSlice", "u32"],
  ["firstSlice", "u32"],
];

/** One invocation a column and slice of rows; the slices' results go to `partial`, `[slices, columns]`. */
const columnSlices = (loop: string, start: string, helpers: string) => /* wgsl */ `
${helpers}
@compute @workgroup_size(${REDUCE_WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x;
  if (column >= params.columns) { return; }
  let rowStart = id.y * params.rowsPerSlice;
  let rowEnd = min(rowStart + params.rowsPerSlice, params.rows);
  ${start}
  for (var row = rowStart; row < rowEnd; row++) {
    let bits = x[params.base + row * params.columns + column];
    ${loop}
  }
  partial[(params.firstSlice + id.y) * params.columns + column] = result;
}`;

/** The largest magnitude of each column within each slice of rows, as bits. */
export const COLUMN_LARGEST: Kernel = {
  name: "column_largest",
  buffers: [
    { name: "x", element: "u32", access: "read" },
    { name: "partial", element: "u32", access: "read_write" },
  ],
  params: COLUMN_SLICE_PARAMS,
  code: columnSlices("result = max(result, magnitude(bits));", "var result = 0u;", MAGNITUDE),
};

/** The sum of squares of each column within each slice of rows, scaled by the column's largest magnitude. */
export const COLUMN_SQUARES: Kernel = {
  name: "column_squares",
  buffers: [
    { name: "x", element: "u32", access: "read" },
    { name: "largest", element: "u32", access: "read" },
    { name: "partial", element: "f32", access: "read_write" },
  ],
  params: COLUMN_SLICE_PARAMS,
  code: columnSlices(
    "let value = bitcast<f32>(bits) * down; result += value * value;",
    "let down = scaleDown(exponentOf(largest[column])); var result = 0.0;",
    SCALING,
  ),
};

/** Combines the slices of {@linkcode COLUMN_LARGEST}: `[slices, columns] → [columns]`. */
export const COLUMN_LARGEST_OF_SLICES: Kernel = {
  name: "column_largest_of_slices",
  buffers: [
    { name: "partial", element: "u32", access: "read" },
    { name: "out", element: "u32", access: "read_write" },
  ],
  params: [["slices", "u32"], ["columns", "u32"]],
  code: /* wgsl */ `
@compute @workgroup_size(${REDUCE_WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.columns) { return; }
  var most = 0u;
  for (var slice = 0u; slice < params.slices; slice++) { most = max(most, partial[slice * params.columns + id.x]); }
  out[id.x] = most;
}`,
};

/** Combines the slices of {@linkcode COLUMN_SQUARES} into norms. */
export const COLUMN_ROOT_OF_SLICES: Kernel = {
  name: "column_root_of_slices",
  buffers: [
    { name: "partial", element: "f32", access: "read" },
    { name: "largest", element: "u32", access: "read" },
    { name: "out", element: "f32", access: "read_write" },
  ],
  params: [["slices", "u32"], ["columns", "u32"]],
  code: /* wgsl */ `
${SCALING}
@compute @workgroup_size(${REDUCE_WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.columns) { return; }
  var sum = 0.0;
  for (var slice = 0u; slice < params.slices; slice++) { sum += partial[slice * params.columns + id.x]; }
  out[id.x] = sqrt(sum) * scaleUp(exponentOf(largest[id.x]));
}`,
};

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
  ${TREE("results", "params.count", kind === "largest" ? MAX : SUM)}
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
  ${TREE("results", "params.count", SUM)}
  if (lane == 0u) { out[0] = results[0]; }
}`,
};
