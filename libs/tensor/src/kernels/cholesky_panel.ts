import type { Kernel, KernelBuffer } from "../gpu/kernel.ts";
import { lines, range } from "./gemm_interface.ts";
import { PACKED_K, PACKED_ROWS, SCALE_OF_LARGEST, SPLIT_INTO_HALVES } from "./pack_halves.ts";

/** Invocations along the rows of a workgroup; each owns every fourth. */
const LANES_Y = 4;

/** What distinguishes the variants of {@linkcode choleskyPanel}. */
export interface PanelForm {
  /** Columns of the panel, those of the diagonal block above it; a multiple of 32. */
  readonly block: number;
  /** Rows that one workgroup solves; a multiple of four. */
  readonly rows: number;
  /** Groups of as many columns, multiples of eight; an invocation owns one column of each. */
  readonly groups: number;
  /** Rows of L start at multiples of four elements and are as long. */
  readonly vec4: boolean;
  /** How a copy of the panel is written for the products with it: packed for matrix units, or as it is. */
  readonly copy: "halves" | "floats";
}

/** How work and workgroup memory are cut. */
interface Plan extends PanelForm {
  /** Columns of a group. */
  readonly width: number;
  readonly threads: number;
  /** vec4s along the inner index that are staged at a time, and from one staged row to the next. */
  readonly quads: number;
  readonly pitch: number;
  /** Rows of an invocation. */
  readonly rowsEach: number;
}

function planOf(form: PanelForm): Plan {
  const width = form.block / form.groups;
  const quads = Math.min(16, width) / 4;
  return { ...form, width, threads: LANES_Y * width, quads, pitch: quads + 1, rowsEach: form.rows / LANES_Y };
}

/** Which of the vec4s that invocations carry cover `count` of them, and the condition under which invocation i has the last. */
function shares(
  { threads }: Plan,
  count: number,
): readonly { readonly index: string; readonly guard: string }[] {
  return range(Math.ceil(count / threads)).map((i) => {
    const index = `(thread + ${i * threads}u)`;
    return { index, guard: (i + 1) * threads > count ? `if (${index} < ${count}u) ` : "" };
  });
}

/** Which of an invocation's vec4s of the inverse lie in its rows from group `first` on. */
function neededOfInverse({ threads, quads, block, width }: Plan, first: number): number[] {
  return range(block * quads / threads).filter((i) => (i + 1) * threads > first * width * quads);
}

function fetch(plan: Plan, first: number, k: string): string {
  const inverse = shares(plan, plan.block * plan.quads);
  return lines([
    ...shares(plan, plan.rows * plan.quads).map(({ index }, i) => `own${i} = ofPanel(${index}, ${k});`),
    ...neededOfInverse(plan, first).map((i) => `inverse${i} = ofInverse(${inverse[i]!.index}, ${k});`),
  ]);
}

function put(plan: Plan, first: number): string {
  const { block, quads, rows } = plan;
  const inverse = shares(plan, block * quads);
  const place = (index: string) => `[${index} / ${quads}u][${index} % ${quads}u]`;
  return lines([
    ...shares(plan, rows * quads).map(({ index, guard }, i) => `${guard}{ panel${place(index)} = own${i}; }`),
    ...neededOfInverse(plan, first).map((i) => `rows${place(inverse[i]!.index)} = inverse${i};`),
  ]);
}

/** Adds the products of what is staged to the sums of groups `first` and up. */
function multiply({ quads, width, rowsEach, groups }: Plan, first: number): string {
  const columns = range(groups).slice(first);
  return lines(
    range(quads).map((quad) => {
      const loads = [
        ...range(rowsEach).map((r) => `let x${r} = panel[y + ${r * LANES_Y}u][${quad}];`),
        ...columns.map((g) => `let m${g} = rows[x + ${g * width}u][${quad}];`),
      ];
      const products = range(4).flatMap((step) =>
        range(rowsEach).flatMap((r) =>
          columns.map((g) => `sum${r}_${g} = fma(x${r}[${step}], m${g}[${step}], sum${r}_${g});`)
        )
      );
      return `{ ${lines([...loads, ...products])} }`;
    }),
  );
}

/** The inverse is lower triangular: from inner index `width` · g on, only groups g and up have something to add. */
function sweep(plan: Plan, group: number): string {
  const { block, width, quads } = plan;
  return /* wgsl */ `
  for (var k = ${group * width}u; k < ${(group + 1) * width}u; k += ${4 * quads}u) {
    workgroupBarrier();
    ${put(plan, group)}
    workgroupBarrier();
    if (k + ${4 * quads}u < ${block}u) { ${fetch(plan, group, `k + ${4 * quads}u`)} }
    ${multiply(plan, group)}
  }`;
}

/** Four neighbouring values of `solved`, or eight of them. */
function gathered(count: number, at: string): string {
  return range(count).map((i) => `solved[${at} + ${i}u]`).join(", ");
}

/** Writes a group of columns: through workgroup memory, because invocations own columns and memory wants rows. */
function store(plan: Plan, group: number): string {
  const { width, copy, rows, rowsEach } = plan;
  const pitch = width + 1;
  const perRow = width / 4;
  const toRows = shares(plan, rows * perRow).map(({ index, guard }) => /* wgsl */ `
  ${guard}{
    let row = first + ${index} / ${perRow}u;
    let column = 4u * (${index} % ${perRow}u);
    let values = vec4f(${gathered(4, `${index} / ${perRow}u * ${pitch}u + column`)});
    if (row < params.rows) {
      storeRow(params.base + row * params.stride + ${group * width}u + column, values);
      ${
    copy === "floats"
      ? `storeCopy((params.copyRow + row) * params.copyStride + params.copyStart + ${
        group * width
      }u + column, values);`
      : ""
  }
    }
  }`);
  const packed = shares(plan, rows * width / 8).map(({ index, guard }) => /* wgsl */ `
  ${guard}{
    let row = ${index} % ${rows}u;
    let column = 8u * (${index} / ${rows}u);
    let values = array(${gathered(8, `row * ${pitch}u + column`)});
    if (first + row < params.rows) { pack(params.copyRow + first + row, ${group * width}u + column, values); }
  }`);
  return /* wgsl */ `
  workgroupBarrier();
  ${lines(range(rowsEach).map((r) => `solved[(y + ${r * LANES_Y}u) * ${pitch}u + x] = sum${r}_${group};`))}
  workgroupBarrier();
  ${lines(toRows)}
  ${copy === "halves" ? lines(packed) : ""}`;
}

/** Writes eight values from `column` on into the packed tiles, as `packHalves` does. */
const PACK = /* wgsl */ `
${SCALE_OF_LARGEST}
${SPLIT_INTO_HALVES}
fn pack(row: u32, column: u32, values: array<f32, 8>) {
  let down = reciprocal(scaleOf(largest[row]));
  var high: array<vec2<f16>, 4>;
  var low: array<vec2<f16>, 4>;
  for (var i = 0u; i < 4u; i++) {
    let value = vec2f(values[2u * i], values[2u * i + 1u]) * down;
    let top = vec2f(rounded(value.x), rounded(value.y));
    high[i] = vec2<f16>(top);
    low[i] = vec2<f16>(value - top);
  }
  let chunk = params.copyStart + column / ${PACKED_K}u;
  let at = ((row / ${PACKED_ROWS}u * params.copyStride + chunk) * 4u + column / 8u % 2u) * ${PACKED_ROWS}u + row % ${PACKED_ROWS}u;
  copy[at] = vec4u(bitcast<u32>(high[0]), bitcast<u32>(high[1]), bitcast<u32>(high[2]), bitcast<u32>(high[3]));
  copy[at + ${
  2 * PACKED_ROWS
}u] = vec4u(bitcast<u32>(low[0]), bitcast<u32>(low[1]), bitcast<u32>(low[2]), bitcast<u32>(low[3]));
}`;

/** Reads and writes four neighbouring elements of an array. */
function accessors(vec4: boolean, name: string, write: string): string {
  return vec4
    ? `fn ${write}(at: u32, values: vec4f) { ${name}[at / 4u] = values; }`
    : `fn ${write}(at: u32, values: vec4f) { ${
      lines(range(4).map((i) => `${name}[at + ${i}u] = values[${i}];`))
    } }`;
}

/**
 * Solves X Lᵀ = P for the panel P below a factored diagonal block L, by the block's inverse and in place, and leaves a copy of X for the
 * products with it: as floats, or as the tiles of `packHalves` in two parts, whose rows were scaled by `largest`. A workgroup reads all
 * of its rows before it writes them.
 */
export function choleskyPanel(form: PanelForm): Kernel {
  const plan = planOf(form);
  const { block, rows, groups, vec4, copy, width, threads, quads, pitch, rowsEach } = plan;
  const element = vec4 ? "vec4f" : "f32";
  const copies: KernelBuffer[] = copy === "floats" ? [{ name: "copy", element, access: "read_write" }] : [
    { name: "largest", element: "u32", access: "read" },
    { name: "copy", element: "vec4u", access: "read_write" },
  ];
  return {
    name: `cholesky_panel_${rows}x${block}_${copy}${vec4 ? "_vec4" : ""}`,
    buffers: [
      { name: "l", element, access: "read_write" },
      { name: "inverses", element: "vec4f", access: "read" },
      ...copies,
    ],
    params: [
      ["rows", "u32"],
      ["stride", "u32"],
      ["base", "u32"],
      ["inverseBase", "u32"],
      // Where the first row of the panel goes in the copy, elements or chunks from one of its rows to the next, and the first of them.
      ["copyRow", "u32"],
      ["copyStride", "u32"],
      ["copyStart", "u32"],
    ],
    enables: copy === "halves" ? ["enable f16;"] : [],
    requires: {
      ...copy === "halves" ? { features: ["shader-f16"] } : {},
      workgroupStorageBytes: 16 * (rows + block) * pitch + 4 * rows * (width + 1),
      invocationsPerWorkgroup: threads,
    },
    code: /* wgsl */ `
var<workgroup> panel: array<array<vec4f, ${pitch}>, ${rows}>;
var<workgroup> rows: array<array<vec4f, ${pitch}>, ${block}>;
var<workgroup> solved: array<f32, ${rows * (width + 1)}>;
var<private> first: u32;

/** vec4 \`index\` of those of the panel's rows that start at column k. */
fn ofPanel(index: u32, k: u32) -> vec4f {
  let row = min(first + index / ${quads}u, params.rows - 1u);
  let at = params.base + row * params.stride + k + 4u * (index % ${quads}u);
  return ${vec4 ? "l[at / 4u]" : "vec4f(l[at], l[at + 1u], l[at + 2u], l[at + 3u])"};
}
fn ofInverse(index: u32, k: u32) -> vec4f {
  return inverses[(params.inverseBase + index / ${quads}u * ${block}u + k) / 4u + index % ${quads}u];
}
${accessors(vec4, "l", "storeRow")}
${copy === "floats" ? accessors(vec4, "copy", "storeCopy") : PACK}

@compute @workgroup_size(${threads})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let start = (group.x + group.y * groups.x) * ${rows}u;
  if (start >= params.rows) { return; }
  first = start;
  let x = thread % ${width}u;
  let y = thread / ${width}u;
  ${lines(range(rowsEach).flatMap((r) => range(groups).map((g) => `var sum${r}_${g} = 0.0;`)))}
  ${lines(shares(plan, rows * quads).map((_, i) => `var own${i} = vec4f(0);`))}
  ${lines(range(block * quads / threads).map((i) => `var inverse${i} = vec4f(0);`))}
  ${fetch(plan, 0, "0u")}
  ${lines(range(groups).map((group) => sweep(plan, group)))}
  ${lines(range(groups).map((group) => store(plan, group)))}
}`,
  };
}

/**
 * An upper bound of the magnitudes of each row of the factor, as bits: no entry of row i of L exceeds √aᵢᵢ. Rows are scaled by it before
 * they are packed, whichever panel is packed.
 */
export const CHOLESKY_ROW_BOUNDS: Kernel = {
  name: "cholesky_row_bounds",
  buffers: [
    { name: "a", element: "f32", access: "read" },
    { name: "largest", element: "u32", access: "read_write" },
  ],
  params: [["rows", "u32"], ["stride", "u32"], ["base", "u32"], ["firstRow", "u32"]],
  code: /* wgsl */ `
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.rows) { return; }
  let row = params.firstRow + id.x;
  largest[row] = bitcast<u32>(sqrt(max(a[params.base + id.x * params.stride + row], 0.0)));
}`,
};
