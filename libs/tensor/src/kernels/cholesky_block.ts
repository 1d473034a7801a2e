import type { Kernel } from "../gpu/kernel.ts";
import { ROOT } from "./cholesky.ts";
import { lines, range } from "./gemm_interface.ts";

/** Rows and columns of a diagonal block that one workgroup factors. */
export const WIDE_BLOCK = 256;

/** Invocations along each axis, and columns of a panel; invocation (x, y) owns the elements (16 a + y, 16 b + x). */
const SIDE = 16;
/** Values from one row of a panel in workgroup memory to the next: odd, so that rows lie in different memory banks. */
const PITCH = SIDE + 1;

/**
 * Factors a panel of 16 columns, one row an invocation. In every step the rows of the diagonal tile publish what they have of the
 * column; two buffers take turns, so that one barrier a column is enough.
 */
function factorPanel(block: number): string {
  const step = (j: number) => {
    const later = range(SIDE - j - 1).map((i) => j + 1 + i);
    const half = j % 2 * (SIDE / 4);
    return /* wgsl */ `
  if (row >= first + ${j}u && row < first + ${SIDE}u) { column[${half}u + (row - first) / 4u][(row - first) % 4u] = r${j}; }
  workgroupBarrier();
  {
    ${
      lines(
        range(SIDE / 4).filter((i) => 4 * i + 3 >= j).map((i) => `let c${i} = column[${half + i}];`),
      )
    }
    let pivot = c${Math.floor(j / 4)}[${j % 4}];
    let scale = 1.0 / root(pivot);
    if (row == first + ${j}u && row < params.size) { pivots[params.pivotStart + row] = pivot; }
    r${j} *= scale;
    let share = r${j} * scale;
    ${lines(later.map((k) => `r${k} = fma(-share, c${Math.floor(k / 4)}[${k % 4}], r${k});`))}
  }`;
  };
  return /* wgsl */ `
fn factorPanel(first: u32, row: u32) {
  let start = min(row, ${block - 1}u) * ${PITCH}u;
  ${lines(range(SIDE).map((j) => `var r${j} = panel[start + ${j}u];`))}
  ${lines(range(SIDE).map(step))}
  if (row >= first && row < ${block}u) { ${lines(range(SIDE).map((j) => `panel[start + ${j}u] = r${j};`))} }
}`;
}

/** Factors the columns 16 p … 16 p + 15, and subtracts what they contribute to what lies right of them. */
function sweep(p: number, block: number): string {
  const rows = range(block / SIDE - p).map((i) => p + i);
  const rest = rows.slice(1);
  return /* wgsl */ `
  ${lines(rows.map((a) => `panel[(${SIDE * a}u + y) * ${PITCH}u + x] = v${a}_${p};`))}
  workgroupBarrier();
  factorPanel(${SIDE * p}u, thread);
  workgroupBarrier();
  ${lines(rows.map((a) => `v${a}_${p} = panel[(${SIDE * a}u + y) * ${PITCH}u + x];`))}
  ${
    rest.length === 0 ? "" : `for (var q = 0u; q < ${SIDE}u; q++) {
    ${
      lines(
        rest.flatMap((a) => [
          `let left${a} = panel[(${SIDE * a}u + y) * ${PITCH}u + q];`,
          `let right${a} = panel[(${SIDE * a}u + x) * ${PITCH}u + q];`,
        ]),
      )
    }
    ${
      lines(
        rest.flatMap((a) =>
          range(a - p).map((i) =>
            `v${a}_${p + 1 + i} = fma(-left${a}, right${p + 1 + i}, v${a}_${p + 1 + i});`
          )
        ),
      )
    }
  }
  workgroupBarrier();`
  }`;
}

/**
 * Factors one diagonal block of up to `block` rows, a multiple of 16, in the registers of 256 invocations. Beyond the parameter `size`
 * the block is continued by the identity.
 */
export function choleskyFactorBlock(block: number): Kernel {
  const tiles = block / SIDE;
  const owned = range(tiles).flatMap((a) => range(a + 1).map((b) => [a, b] as const));
  return {
    name: `cholesky_factor_block_${block}`,
    buffers: [
      { name: "l", element: "f32", access: "read_write" },
      { name: "pivots", element: "f32", access: "read_write" },
    ],
    params: [["size", "u32"], ["stride", "u32"], ["base", "u32"], ["pivotStart", "u32"]],
    requires: { workgroupStorageBytes: 4 * (block * PITCH + 2 * SIDE), invocationsPerWorkgroup: SIDE * SIDE },
    code: /* wgsl */ `
var<workgroup> panel: array<f32, ${block * PITCH}>;
var<workgroup> column: array<vec4f, ${2 * SIDE / 4}>;
${ROOT}
fn element(row: u32, column: u32) -> f32 {
  if (row >= params.size || column > row) { return select(0.0, 1.0, row == column); }
  return l[params.base + row * params.stride + column];
}
fn store(row: u32, column: u32, value: f32) {
  if (row < params.size && column <= row) { l[params.base + row * params.stride + column] = value; }
}
${factorPanel(block)}

@compute @workgroup_size(${SIDE * SIDE})
fn main(@builtin(local_invocation_index) thread: u32) {
  let x = thread % ${SIDE}u;
  let y = thread / ${SIDE}u;
  ${lines(owned.map(([a, b]) => `var v${a}_${b} = element(${SIDE * a}u + y, ${SIDE * b}u + x);`))}
  ${lines(range(tiles).map((p) => sweep(p, block)))}
  ${lines(owned.map(([a, b]) => `store(${SIDE * a}u + y, ${SIDE * b}u + x, v${a}_${b});`))}
}`,
  };
}

/** Columns of the inverse that a workgroup computes. */
export const INVERSE_COLUMNS = SIDE;

/**
 * Inverts a factored diagonal block by forward substitution, 16 columns of the identity a workgroup. First the tiles of 16 × 16 on its
 * diagonal are inverted, a column an invocation; then panel by panel of 16 rows, the solution is the tile's inverse times what is left of
 * the right-hand side there, and every row below subtracts its share. Invocation i owns row i.
 */
export function invertTriangularBlock(block: number): Kernel {
  const tiles = block / SIDE;
  const vectors = range(SIDE / 4);
  return {
    name: `invert_triangular_block_${block}`,
    buffers: [
      { name: "l", element: "f32", access: "read" },
      { name: "inverses", element: "vec4f", access: "read_write" },
    ],
    params: [["size", "u32"], ["stride", "u32"], ["base", "u32"], ["inverseBase", "u32"]],
    requires: {
      workgroupStorageBytes: 4 * (tiles * SIDE * PITCH + SIDE * PITCH + SIDE * SIDE),
      invocationsPerWorkgroup: SIDE * SIDE,
    },
    code: /* wgsl */ `
/** Inverses of the tiles on the diagonal, [tile][row][column]. */
var<workgroup> tiles: array<f32, ${tiles * SIDE * PITCH}>;
/** What is left of the right-hand side in a panel's rows, and the solution there, [row][column]. */
var<workgroup> rest: array<f32, ${SIDE * PITCH}>;
var<workgroup> known: array<vec4f, ${SIDE * SIDE / 4}>;

fn element(row: u32, column: u32) -> f32 {
  if (row >= params.size || column > row) { return select(0.0, 1.0, row == column); }
  return l[params.base + row * params.stride + column];
}

/** Column \`column\` of the inverse of a diagonal tile, by forward substitution. */
fn invertTile(tile: u32, column: u32) {
  let first = tile * ${SIDE}u;
  ${
      lines(
        range(SIDE).map((i) => /* wgsl */ `
  var x${i} = select(0.0, 1.0, column == ${i}u);
  ${lines(range(i).map((k) => `x${i} = fma(-element(first + ${i}u, first + ${k}u), x${k}, x${i});`))}
  x${i} /= element(first + ${i}u, first + ${i}u);
  tiles[(first + ${i}u) * ${PITCH}u + column] = x${i};`),
      )
    }
}

@compute @workgroup_size(${SIDE * SIDE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) i: u32) {
  let x = i % ${SIDE}u;
  let y = i / ${SIDE}u;
  if (y < ${tiles}u) { invertTile(y, x); }
  let first = group.x * ${SIDE}u;
  ${
      lines(vectors.map((v) =>
        `var rest${v} = select(vec4f(0), vec4f(1), vec4u(first + ${4 * v}u) + vec4u(0, 1, 2, 3) == vec4u(i));`
      ))
    }
  // Rows above the first column of the workgroup are zero.
  for (var start = first; start < ${block}u; start += ${SIDE}u) {
    if (i >= start && i < start + ${SIDE}u) {
      ${
      lines(vectors.flatMap((v) =>
        range(4).map((c) =>
          `rest[(i - start) * ${PITCH}u + ${4 * v + c}u] = rest${v}[${c}];`
        )
      ))
    }
    }
    workgroupBarrier();
    var solved = 0.0;
    for (var k = 0u; k < ${SIDE}u; k++) {
      solved = fma(tiles[(start + y) * ${PITCH}u + k], rest[k * ${PITCH}u + x], solved);
    }
    known[(y * ${SIDE}u + x) / 4u][x % 4u] = solved;
    workgroupBarrier();
    if (i >= start && i < start + ${SIDE}u) {
      ${lines(vectors.map((v) => `rest${v} = known[(i - start) * ${SIDE / 4}u + ${v}u];`))}
    } else if (i > start && i < ${block}u) {
      for (var k = 0u; k < ${SIDE}u; k++) {
        let share = -element(i, start + k);
        ${
      lines(vectors.map((v) => `rest${v} = fma(vec4f(share), known[k * ${SIDE / 4}u + ${v}u], rest${v});`))
    }
      }
    }
  }
  if (i < ${block}u) {
    ${
      lines(
        vectors.map((v) => `inverses[(params.inverseBase + i * ${block}u + first) / 4u + ${v}u] = rest${v};`),
      )
    }
  }
}`,
  };
}

/** The kernels for blocks of {@linkcode WIDE_BLOCK} rows. */
export const CHOLESKY_FACTOR_BLOCK: Kernel = choleskyFactorBlock(WIDE_BLOCK);
export const INVERT_TRIANGULAR_BLOCK: Kernel = invertTriangularBlock(WIDE_BLOCK);
