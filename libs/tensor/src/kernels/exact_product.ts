import type { Kernel } from "../gpu/kernel.ts";
import { POWER_ABOVE, SLICE, UNIT } from "./exact_slices.ts";
import { lines, range } from "./gemm_interface.ts";

/** Products that f32 sums before the sum goes to an integer. */
const EXACT_RUN = 4;

/** The longest run of the inner index that one invocation takes. */
export const LONGEST_EXACT_SUM = 2 ** 11;

/** 1.5 · 2²³: added to an integer of magnitude up to 2²², it makes a float whose bits are the integer's but for a constant. */
const MAGIC = 12582912;

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

/** A slicing and a tile, and what follows from them. */
interface Plan extends ExactTile {
  readonly form: SlicedForm;
  readonly tileRows: number;
  readonly tileColumns: number;
  /** Invocations of a workgroup. */
  readonly threads: number;
}

/** WGSL that brings the operands of a tile into workgroup memory, by way of every invocation's variables. */
interface Staging {
  readonly declarations: string;
  /** Reads what an invocation carries of the inner length from `k0` on. */
  fetch(k0: string): string;
  /** Slices what was read, into workgroup memory. */
  readonly store: string;
}

function stagingOf({ form, tileRows, tileColumns, threads, depth }: Plan): Staging {
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
  return {
    declarations: lines([
      ...ofX.map(({ i }) => `var nextX${i}: vec4f;`),
      ...ofG.map(({ i, row }) => /* wgsl */ `
  var nextG${i}: f32;
  var bound${i}: u32;
  let columnScale${i} = reciprocal(powerAbove(bounds[${inMatrix(row)}])) * ${UNIT}.0;`),
    ]),
    // Beyond the end, elements of X count as zero, and those of the matrix are any that there are: no read waits for a branch.
    fetch: (k0) =>
      lines([
        ...ofX.map(({ i, row, step }) => /* wgsl */ `
      nextX${i} = sliced[min(rowStart + ${row}, params.m - 1u) * params.n + params.firstK + min(${k0} + ${step}, kEnd - 1u)];
      if (${k0} + ${step} >= kEnd) { nextX${i} = vec4f(0); }`),
        ...ofG.map(({ i, row, step }) => /* wgsl */ `
      bound${i} = bounds[params.firstK + min(${k0} + ${step}, kEnd - 1u)];
      nextG${i} = matrix[params.base + min(${k0} + ${step}, kEnd - 1u) * params.n + ${inMatrix(row)}];`),
      ]),
    store: lines([
      ...ofX.map(({ i, row, step, guard }) => /* wgsl */ `
    ${guard}{
      let value = nextX${i};
      ${form.ofRow}
      stagedX[${row}][${step}] = parts;
    }`),
      ...ofG.map(({ i, row, step, guard }) => /* wgsl */ `
    ${guard}{
      let value = nextG${i} * reciprocal(powerAbove(bound${i})) * columnScale${i};
      ${form.ofElement}
      stagedG[${step}][${row}] = parts;
    }`),
    ]),
  };
}

/** WGSL of the sums of an invocation: short runs in f32, which go to integers before they round, and what is left in f32. */
interface Summing {
  readonly declarations: string;
  /** Adds the products of step `k` of the staged tiles. */
  readonly multiply: string;
  /** Ends a run. */
  readonly endRun: string;
  readonly write: string;
}

function summingOf({ form, rowsEach, columnsEach, lanesY, lanesX }: Plan): Summing {
  const outputs = range(rowsEach).flatMap((r) => range(columnsEach).map((c) => ({ r, c, at: `${r}_${c}` })));
  const levels = range(form.levels);
  return {
    declarations: lines(outputs.flatMap(({ at }) => [
      ...levels.map((level) => `var run${level}_${at} = ${MAGIC}.0; var sum${level}_${at} = 0u;`),
      `var rest_${at} = 0.0; var total_${at} = 0.0;`,
    ])),
    multiply: lines([
      ...range(rowsEach).map((r) => `let x${r} = stagedX[y + ${r * lanesY}u][k];`),
      ...range(columnsEach).map((c) => /* wgsl */ `
        let g${c} = stagedG[k][x + ${c * lanesX}u];
        ${form.shared(`g${c}`, c)}`),
      ...outputs.map(({ r, c, at }) => form.products(`x${r}`, `g${c}`, c, at)),
    ]),
    endRun: lines(outputs.flatMap(({ at }) => [
      ...levels.map((level) =>
        `sum${level}_${at} += bitcast<u32>(run${level}_${at}) - ${
          bitsOf(MAGIC)
        }u; run${level}_${at} = ${MAGIC}.0;`
      ),
      // Short runs first, because f32 loses less of sums that are small.
      `total_${at} += rest_${at}; rest_${at} = 0.0;`,
    ])),
    write: lines(outputs.map(({ r, c, at }) => /* wgsl */ `
  {
    let row = rowStart + y + ${r * lanesY}u;
    let column = columnStart + x + ${c * lanesX}u;
    if (row < params.m && column < params.n) {
      sums[((params.firstSlice + group.z) * params.m + row) * params.n + column] =
        vec4u(${
      range(3).map((level) => level < form.levels ? `sum${level}_${at}` : "0u").join(", ")
    }, bitcast<u32>(total_${at} * ${form.unitOfRest}.0));
    }
  }`)),
  };
}

/**
 * Sums of products of sliced rows with columns of a symmetric positive semidefinite matrix, whose entries |gₖⱼ| ≤ √(gₖₖ gⱼⱼ) are scaled and sliced
 * likewise. Each z of the workgroup takes a part of the inner index and leaves `[x₀ g₀, x₀ g₁ + x₁ g₀, x₀ g₂ + x₁ g₁ + x₂ g₀, others]`, the first
 * three as integers. `fine` slicing sums these six of the sixteen products of slices exactly and the others, together less than 2⁻²⁰ of the
 * rest, in f32; `coarse` slicing sums only the first exactly, and the others, less than 2⁻⁹ of it, in f32.
 */
export function exactProduct(slicing: Slicing, tile: ExactTile): ExactKernel {
  const { rowsEach, columnsEach, lanesY, lanesX, depth } = tile;
  const form = FORMS[slicing];
  const [tileRows, tileColumns, threads] = [rowsEach * lanesY, columnsEach * lanesX, lanesX * lanesY];
  const plan = { ...tile, form, tileRows, tileColumns, threads };
  const [staging, summing] = [stagingOf(plan), summingOf(plan)];
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
  ${summing.declarations}
  ${staging.declarations}
  ${staging.fetch("kStart")}
  for (var k0 = kStart; k0 < kEnd; k0 += ${depth}u) {
    workgroupBarrier();
    ${staging.store}
    workgroupBarrier();
    // The next tile's elements are on their way while this one's are multiplied.
    if (k0 + ${depth}u < kEnd) {
      ${staging.fetch(`k0 + ${depth}u`)}
    }
    for (var run = 0u; run < ${depth}u; run += ${EXACT_RUN}u) {
      for (var k = run; k < run + ${EXACT_RUN}u; k++) {
        ${summing.multiply}
      }
      ${summing.endRun}
    }
  }
  ${summing.write}
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

function bitsOf(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0]!;
}
