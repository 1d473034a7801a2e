import type { Kernel } from "../gpu/kernel.ts";
import { ERROR_FREE } from "./error_free.ts";
import { lines, range } from "./gemm_interface.ts";

/**
 * A number x of magnitude at most 1 is cut into slices: 2⁻⁹ (x₀ + 2⁻¹⁰ (x₁ + 2⁻¹⁰ (x₂ + x₃))) with integers x₀, x₁ and x₂ of magnitude at most 2⁹
 * and what is left, x₃. Products of such integers are at most 2¹⁸: f32 sums of three times {@linkcode EXACT_RUN} of them are exact, in whichever
 * order a compiler adds them, and 32-bit integers hold three times {@linkcode LONGEST_EXACT_SUM}.
 */
const UNIT = 2 ** 9;
const SLICE = 2 ** 10;

/** Products that f32 sums before the sum goes to an integer. */
const EXACT_RUN = 4;

/** The longest run of the inner index that one invocation takes. */
export const LONGEST_EXACT_SUM = 2 ** 11;

/** 1.5 · 2²³: added to an integer of magnitude up to 2²², it makes a float whose bits are the integer's but for a constant. */
const MAGIC = 12582912;

/** The power of two above a magnitude that is given as bits, 1 for zero; and what multiplies by the inverse of a power of two. */
const POWER_ABOVE = /* wgsl */ `
fn powerAbove(bits: u32) -> f32 {
  let exponent = (bits >> 23u) & 0xffu;
  return select(bitcast<f32>(min(exponent + 1u, 253u) << 23u), 1.0, exponent == 0u);
}
fn reciprocal(power: f32) -> f32 { return bitcast<f32>((254u << 23u) - bitcast<u32>(power)); }`;

/** Lanes that slice a row together. */
const SLICE_LANES = 256;

/**
 * Cuts rows of high + low into slices after dividing them by a power of two, a workgroup a row; before that it scales column k by the power
 * of two above `bounds[k]`. The powers of two that rows are to be multiplied by go to `scales`.
 */
export const SLICE_ROWS: Kernel = {
  name: "exact_slice_rows",
  buffers: [
    { name: "high", element: "f32", access: "read" },
    { name: "low", element: "f32", access: "read" },
    { name: "bounds", element: "u32", access: "read" },
    { name: "sliced", element: "vec4f", access: "read_write" },
    { name: "scales", element: "f32", access: "read_write" },
  ],
  params: [["rows", "u32"], ["n", "u32"], ["firstRow", "u32"]],
  requires: { workgroupStorageBytes: 4 * SLICE_LANES, invocationsPerWorkgroup: SLICE_LANES },
  code: /* wgsl */ `
var<workgroup> largest: array<f32, ${SLICE_LANES}>;
${POWER_ABOVE}
@compute @workgroup_size(${SLICE_LANES})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let start = (params.firstRow + group.x) * params.n;
  var found = 0.0;
  for (var k = lane; k < params.n; k += ${SLICE_LANES}u) {
    found = max(found, abs(high[start + k] * powerAbove(bounds[k])));
  }
  largest[lane] = found;
  workgroupBarrier();
  for (var half = ${SLICE_LANES / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { largest[lane] = max(largest[lane], largest[lane + half]); }
    workgroupBarrier();
  }
  let scale = powerAbove(bitcast<u32>(largest[0]));
  let up = ${UNIT}.0 * reciprocal(scale);
  for (var k = lane; k < params.n; k += ${SLICE_LANES}u) {
    let factor = powerAbove(bounds[k]) * up;
    let x = high[start + k] * factor;
    let first = round(x);
    let rest = (x - first) * ${SLICE}.0;
    let second = round(rest);
    let last = (rest - second) * ${SLICE}.0;
    let third = round(last);
    let left = (last - third) + low[start + k] * factor * ${SLICE ** 2}.0;
    sliced[group.x * params.n + k] = vec4f(first, second, third, left);
  }
  if (lane == 0u) { scales[group.x] = scale; }
}`,
};

/** How products of sliced numbers are summed. */
export type Slicing = "fine" | "coarse";

/** WGSL of one slicing. Staged numbers have their integers first, and what is left of them last. */
interface SlicedForm {
  readonly staged: "vec4f" | "vec2f";
  /** Sums of products of integers, whose units are 2⁻¹⁰ of each other. */
  readonly levels: number;
  /** Statements that make `parts` of `value`: of a row's slices, or of an element of the matrix. */
  readonly ofRow: string;
  readonly ofElement: string;
  /** Sums of slices of an element `g` that serve all rows. */
  shared(g: string, c: number): string;
  /** Adds the products of `x` and `g` to the sums called `at`. */
  products(x: string, g: string, c: number, at: string): string;
  /** The unit of what is summed in f32, over that of the last of three levels. */
  readonly unitOfRest: number;
}

const FORMS: Readonly<Record<Slicing, SlicedForm>> = {
  fine: {
    staged: "vec4f",
    levels: 3,
    ofRow: "let parts = value;",
    ofElement: /* wgsl */ `
    let first = round(value);
    let second = round((value - first) * ${SLICE}.0);
    let last = ((value - first) * ${SLICE}.0 - second) * ${SLICE}.0;
    let third = round(last);
    let parts = vec4f(first, second, third, last - third);`,
    shared: (g, c) => /* wgsl */ `
        let tail${c} = (${g}.z + ${g}.w) * ${1 / SLICE};
        let lower${c} = (${g}.y + tail${c}) * ${1 / SLICE};
        let whole${c} = ${g}.x + lower${c};`,
    products: (x, g, c, at) => /* wgsl */ `
        run0_${at} = fma(${x}.x, ${g}.x, run0_${at});
        run1_${at} = fma(${x}.y, ${g}.x, fma(${x}.x, ${g}.y, run1_${at}));
        run2_${at} = fma(${x}.z, ${g}.x, fma(${x}.y, ${g}.y, fma(${x}.x, ${g}.z, run2_${at})));
        rest_${at} = fma(${x}.w, whole${c}, fma(${x}.z, lower${c}, fma(${x}.y, tail${c}, fma(${x}.x, ${g}.w, rest_${at}))));`,
    unitOfRest: 1,
  },
  coarse: {
    staged: "vec2f",
    levels: 1,
    ofRow: `let parts = vec2f(value.x, value.y + (value.z + value.w) * ${1 / SLICE});`,
    ofElement: `let first = round(value); let parts = vec2f(first, (value - first) * ${SLICE}.0);`,
    shared: (g, c) => `let whole${c} = fma(${g}.y, ${1 / SLICE}, ${g}.x);`,
    products: (x, g, c, at) => /* wgsl */ `
        run0_${at} = fma(${x}.x, ${g}.x, run0_${at});
        rest_${at} = fma(${x}.y, whole${c}, fma(${x}.x, ${g}.y, rest_${at}));`,
    unitOfRest: SLICE,
  },
};

/** Shape of a tile of an exact product. */
export interface ExactTile {
  /** Rows and columns of an invocation. */
  readonly rowsEach: number;
  readonly columnsEach: number;
  /** Invocations along rows and along columns. */
  readonly lanesY: number;
  readonly lanesX: number;
  /** Inner length that is staged at a time; a multiple of four. */
  readonly depth: number;
}

/** A kernel for exact products and the tile of a workgroup. */
export interface ExactKernel {
  readonly kernel: Kernel;
  readonly tileRows: number;
  readonly tileColumns: number;
}

/**
 * Sums of products of sliced rows with columns of a symmetric positive semidefinite matrix, whose entries |gₖⱼ| ≤ √(gₖₖ gⱼⱼ) are scaled and sliced
 * likewise. Each z of the workgroup takes a part of the inner index and leaves `[x₀ g₀, x₀ g₁ + x₁ g₀, x₀ g₂ + x₁ g₁ + x₂ g₀, others]`, the first
 * three as integers. `fine` slicing sums these six of the sixteen products of slices exactly and the others, together less than 2⁻²⁰ of the
 * rest, in f32; `coarse` slicing sums only the first exactly, and the others, less than 2⁻⁹ of it, in f32.
 */
export function exactProduct(
  slicing: Slicing,
  { rowsEach, columnsEach, lanesY, lanesX, depth }: ExactTile,
): ExactKernel {
  const form = FORMS[slicing];
  const [tileRows, tileColumns, threads] = [rowsEach * lanesY, columnsEach * lanesX, lanesX * lanesY];
  const outputs = range(rowsEach).flatMap((r) => range(columnsEach).map((c) => ({ r, c, at: `${r}_${c}` })));
  const levels = range(form.levels);
  /** What an invocation carries of a tile: its place, its row or column there, and its step of the inner index. */
  const carried = (extent: number, rowOf: (index: string) => readonly [row: string, step: string]) =>
    range(Math.ceil(extent * depth / threads)).map((i) => {
      const index = `(thread + ${i * threads}u)`;
      const [row, step] = rowOf(index);
      const guard = (i + 1) * threads > extent * depth ? `if (${index} < ${extent * depth}u) ` : "";
      return { i, row, step, guard };
    });
  const ofX = carried(tileRows, (index) => [`${index} / ${depth}u`, `${index} % ${depth}u`]);
  const ofG = carried(tileColumns, (index) => [`${index} % ${tileColumns}u`, `${index} / ${tileColumns}u`]);
  const inMatrix = (column: string) => `min(columnStart + ${column}, params.n - 1u)`;
  // Beyond the end, elements of X count as zero, and those of the matrix are any that there are: no read waits for a branch.
  const fetch = (k0: string) =>
    lines([
      ...ofX.map(({ i, row, step }) => /* wgsl */ `
      nextX${i} = sliced[min(rowStart + ${row}, params.m - 1u) * params.n + params.firstK + min(${k0} + ${step}, kEnd - 1u)];
      if (${k0} + ${step} >= kEnd) { nextX${i} = vec4f(0); }`),
      ...ofG.map(({ i, row, step }) => /* wgsl */ `
      bound${i} = bounds[params.firstK + min(${k0} + ${step}, kEnd - 1u)];
      nextG${i} = matrix[params.base + min(${k0} + ${step}, kEnd - 1u) * params.n + ${inMatrix(row)}];`),
    ]);
  const code = /* wgsl */ `
${POWER_ABOVE}
var<workgroup> stagedX: array<array<${form.staged}, ${depth}>, ${tileRows}>;
var<workgroup> stagedG: array<array<${form.staged}, ${tileColumns}>, ${depth}>;

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let rowStart = group.y * ${tileRows}u;
  let columnStart = group.x * ${tileColumns}u;
  let x = thread % ${lanesX}u;
  let y = thread / ${lanesX}u;
  let kStart = group.z * params.perSlice;
  let kEnd = min(kStart + params.perSlice, params.inner);
  ${
    lines(outputs.flatMap(({ at }) => [
      ...levels.map((level) => `var run${level}_${at} = ${MAGIC}.0; var sum${level}_${at} = 0u;`),
      `var rest_${at} = 0.0; var total_${at} = 0.0;`,
    ]))
  }
  ${lines(ofX.map(({ i }) => `var nextX${i}: vec4f;`))}
  ${
    lines(ofG.map(({ i, row }) => /* wgsl */ `
  var nextG${i}: f32;
  var bound${i}: u32;
  let columnScale${i} = reciprocal(powerAbove(bounds[${inMatrix(row)}])) * ${UNIT}.0;`))
  }
  ${fetch("kStart")}
  for (var k0 = kStart; k0 < kEnd; k0 += ${depth}u) {
    workgroupBarrier();
    ${
    lines(ofX.map(({ i, row, step, guard }) => /* wgsl */ `
    ${guard}{
      let value = nextX${i};
      ${form.ofRow}
      stagedX[${row}][${step}] = parts;
    }`))
  }
    ${
    lines(ofG.map(({ i, row, step, guard }) => /* wgsl */ `
    ${guard}{
      let value = nextG${i} * reciprocal(powerAbove(bound${i})) * columnScale${i};
      ${form.ofElement}
      stagedG[${step}][${row}] = parts;
    }`))
  }
    workgroupBarrier();
    // The next tile's elements are on their way while this one's are multiplied.
    if (k0 + ${depth}u < kEnd) {
      ${fetch(`k0 + ${depth}u`)}
    }
    for (var run = 0u; run < ${depth}u; run += ${EXACT_RUN}u) {
      for (var k = run; k < run + ${EXACT_RUN}u; k++) {
        ${lines(range(rowsEach).map((r) => `let x${r} = stagedX[y + ${r * lanesY}u][k];`))}
        ${
    lines(
      range(columnsEach).map((c) => /* wgsl */ `
        let g${c} = stagedG[k][x + ${c * lanesX}u];
        ${form.shared(`g${c}`, c)}`),
    )
  }
        ${lines(outputs.map(({ r, c, at }) => form.products(`x${r}`, `g${c}`, c, at)))}
      }
      ${
    lines(outputs.flatMap(({ at }) => [
      ...levels.map((level) =>
        `sum${level}_${at} += bitcast<u32>(run${level}_${at}) - ${
          bitsOf(MAGIC)
        }u; run${level}_${at} = ${MAGIC}.0;`
      ),
      // Short runs first, because f32 loses less of sums that are small.
      `total_${at} += rest_${at}; rest_${at} = 0.0;`,
    ]))
  }
    }
  }
  ${
    lines(outputs.map(({ r, c, at }) => /* wgsl */ `
  {
    let row = rowStart + y + ${r * lanesY}u;
    let column = columnStart + x + ${c * lanesX}u;
    if (row < params.m && column < params.n) {
      sums[((params.firstSlice + group.z) * params.m + row) * params.n + column] =
        vec4u(${
      range(3).map((level) => level < form.levels ? `sum${level}_${at}` : "0u").join(", ")
    }, bitcast<u32>(total_${at} * ${form.unitOfRest}.0));
    }
  }`))
  }
}`;
  return {
    tileRows,
    tileColumns,
    kernel: {
      name: `exact_product_${slicing}_${tileRows}x${tileColumns}x${depth}`,
      buffers: [
        { name: "sliced", element: "vec4f", access: "read" },
        { name: "matrix", element: "f32", access: "read" },
        { name: "bounds", element: "u32", access: "read" },
        { name: "sums", element: "vec4u", access: "read_write" },
      ],
      params: [
        ["m", "u32"],
        ["n", "u32"],
        // A run of rows of the matrix, from row firstK on.
        ["inner", "u32"],
        ["base", "u32"],
        ["firstK", "u32"],
        ["perSlice", "u32"],
        ["firstSlice", "u32"],
      ],
      requires: {
        workgroupStorageBytes: (form.staged === "vec4f" ? 16 : 8) * depth * (tileRows + tileColumns),
        invocationsPerWorkgroup: threads,
      },
      code,
    },
  };
}

/** target − (what the sums of all slices stand for) − (high + low)·diagonal, in pairs of f32 until everything has cancelled. */
export const EXACT_RESIDUAL: Kernel = {
  name: "exact_residual",
  buffers: [
    { name: "goal", element: "f32", access: "read" },
    { name: "high", element: "f32", access: "read" },
    { name: "low", element: "f32", access: "read" },
    { name: "diagonal", element: "f32", access: "read" },
    { name: "sums", element: "vec4u", access: "read" },
    { name: "scales", element: "f32", access: "read" },
    { name: "bounds", element: "u32", access: "read" },
    { name: "result", element: "f32", access: "read_write" },
  ],
  params: [["m", "u32"], ["n", "u32"], ["slices", "u32"], ["firstRow", "u32"], ["zero", "u32"]],
  code: /* wgsl */ `
${POWER_ABOVE}
${ERROR_FREE}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let index = id.x + id.y * groups.x * 64u;
  if (index >= params.m * params.n) { return; }
  let row = index / params.n;
  let column = index % params.n;
  // Sums of many slices exceed 32 bits, and f32 24: the upper parts of each sum and the lower 12 bits are added up apart.
  var upper = vec3i(0);
  var lower = vec3i(0);
  var rest = 0.0;
  for (var slice = 0u; slice < params.slices; slice++) {
    let sum = sums[slice * params.m * params.n + index];
    let exact = bitcast<vec3i>(sum.xyz);
    upper += exact >> vec3u(12u);
    lower += exact & vec3i(4095);
    rest += bitcast<f32>(sum.w);
  }
  let at = params.firstRow * params.n + index;
  let unit = scales[row] * powerAbove(bounds[column]) * ${1 / UNIT ** 2};
  let d = diagonal[column];
  let d_head = head(d);
  let d_tail = d - d_head;
  let x_head = head(high[at]);
  let x_tail = high[at] - x_head;
  let terms = array<f32, 10>(
    x_head * d_head,
    x_head * d_tail,
    x_tail * d_head,
    x_tail * d_tail,
    ${
    lines(
      range(3).flatMap((level) => [
        `f32(upper[${level}]) * (unit * ${4096 / SLICE ** level}),`,
        `f32(lower[${level}]) * (unit * ${1 / SLICE ** level}),`,
      ]),
    )
  }
  );
  var total = Pair(goal[at], 0.0);
  for (var i = 0u; i < 10u; i++) {
    let next = two_sum(total.high, -terms[i]);
    total = Pair(next.high, total.low + next.low);
  }
  result[at] = total.high + (total.low - (low[at] * d + rest * (unit * ${1 / SLICE ** 2})));
}`,
};

function bitsOf(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0]!;
}
