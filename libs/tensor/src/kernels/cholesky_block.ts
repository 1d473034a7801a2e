import type { Kernel } from "../gpu/kernel.ts";
import { ROOT } from "./cholesky.ts";
import { lines, range } from "./gemm_interface.ts";

/** Rows and columns of a diagonal block that one workgroup factors. */
export const WIDE_BLOCK = 256;

/** Invocations along each axis; invocation (x, y) owns the elements (16 a + y, 16 b + x). */
const SIDE = 16;

/** An element of a block that is continued by the identity, zero above the diagonal. */
const ELEMENT = /* wgsl */ `
fn element(row: u32, column: u32) -> f32 {
  if (row >= params.size || column > row) { return select(0.0, 1.0, row == column); }
  return l[params.base + row * params.stride + column];
}`;

/**
 * One sweep over the columns 16 p … 16 p + 15. The owner of a column publishes it, then everyone subtracts its outer product with
 * itself from what lies right of it. Two buffers take turns, so that one barrier a column is enough.
 */
function sweep(p: number, block: number): string {
  const rows = range(block / SIDE - p).map((i) => p + i);
  const updates = rows.flatMap((a) => [
    `let left${a} = column[at + ${SIDE * a}u + y] * scale;`,
    ...range(a - p + 1).map((i) => `v${a}_${p + i} = fma(-left${a}, right${p + i}, v${a}_${p + i});`),
  ]);
  return /* wgsl */ `
  for (var q = 0u; q < ${SIDE}u; q++) {
    let at = ${block}u * (q % 2u);
    if (x == q) { ${lines(rows.map((a) => `column[at + ${SIDE * a}u + y] = v${a}_${p};`))} }
    workgroupBarrier();
    let pivot = column[at + ${SIDE * p}u + q];
    let scale = 1.0 / root(pivot);
    if (thread == 0u) { found[${SIDE * p}u + q] = pivot; }
    ${
    lines(rows.map((b) =>
      // What lies left of the column, and the column itself, stay as they are.
      `let right${b} = ${b === p ? "select(0.0, " : ""}column[at + ${SIDE * b}u + x] * scale${
        b === p ? ", x > q)" : ""
      };`
    ))
  }
    ${lines(updates)}
    if (x == q) { ${lines(rows.map((a) => `v${a}_${p} = left${a};`))} }
  }`;
}

/**
 * Factors one diagonal block of up to `block` rows, a multiple of 16, in the registers of 256 invocations. Beyond the parameter `size`
 * the block is continued by the identity.
 */
export function choleskyFactorBlock(block: number): Kernel {
  const tiles = block / SIDE;
  return {
    name: `cholesky_factor_block_${block}`,
    buffers: [
      { name: "l", element: "f32", access: "read_write" },
      { name: "pivots", element: "f32", access: "read_write" },
    ],
    params: [["size", "u32"], ["stride", "u32"], ["base", "u32"], ["pivotStart", "u32"]],
    requires: { workgroupStorageBytes: 12 * block, invocationsPerWorkgroup: SIDE * SIDE },
    code: /* wgsl */ `
var<workgroup> column: array<f32, ${2 * block}>;
/** Pivots on their way to memory: with a store under way, each barrier would wait for it. */
var<workgroup> found: array<f32, ${block}>;
${ROOT}
${ELEMENT}
fn store(row: u32, column: u32, value: f32) {
  if (row < params.size && column <= row) { l[params.base + row * params.stride + column] = value; }
}

@compute @workgroup_size(${SIDE * SIDE})
fn main(@builtin(local_invocation_index) thread: u32) {
  let x = thread % ${SIDE}u;
  let y = thread / ${SIDE}u;
  ${
      lines(
        range(tiles).flatMap((a) =>
          range(a + 1).map((b) => `var v${a}_${b} = element(${SIDE * a}u + y, ${SIDE * b}u + x);`)
        ),
      )
    }
  ${lines(range(tiles).map((p) => sweep(p, block)))}
  ${
      lines(
        range(tiles).flatMap((a) =>
          range(a + 1).map((b) => `store(${SIDE * a}u + y, ${SIDE * b}u + x, v${a}_${b});`)
        ),
      )
    }
  workgroupBarrier();
  for (var i = thread; i < params.size; i += ${SIDE * SIDE}u) { pivots[params.pivotStart + i] = found[i]; }
}`,
  };
}

const VECTORS = range(SIDE / 4);
/** Values from one row of a tile in workgroup memory to the next: odd, so that rows lie in different memory banks. */
const PITCH = SIDE + 1;

/** Columns of the inverse that a workgroup computes. */
export const INVERSE_COLUMNS = SIDE;

/**
 * Inverts a factored diagonal block by forward substitution, 16 columns of the identity a workgroup. First the tiles of 16 × 16 on its
 * diagonal are inverted, a column an invocation; then panel by panel of 16 rows, the solution is the tile's inverse times what is left of
 * the right-hand side there, and every row below subtracts its share. Invocation i owns row i.
 */
export function invertTriangularBlock(block: number): Kernel {
  const tiles = block / SIDE;
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
/** The tiles on the diagonal, then their inverses, [tile][row][column]. */
var<workgroup> tiles: array<f32, ${tiles * SIDE * PITCH}>;
/** What is left of the right-hand side in a panel's rows, and the solution there, [row][column]. */
var<workgroup> rest: array<f32, ${SIDE * PITCH}>;
var<workgroup> known: array<vec4f, ${SIDE * SIDE / 4}>;
${ELEMENT}
fn elements(row: u32, column: u32) -> vec4f {
  return vec4f(element(row, column), element(row, column + 1u), element(row, column + 2u), element(row, column + 3u));
}

/** Inverts the tiles, a column an invocation, by forward substitution. */
fn invertTiles(row: u32) {
  let inside = row < ${block}u;
  let tile = row / ${SIDE}u * ${SIDE}u;
  let column = row % ${SIDE}u;
  if (inside) {
    ${
      lines(VECTORS.flatMap((v) => [
        `let own${v} = elements(row, tile + ${4 * v}u);`,
        ...range(4).map((c) => `tiles[row * ${PITCH}u + ${4 * v + c}u] = own${v}[${c}];`),
      ]))
    }
  }
  workgroupBarrier();
  let start = select(0u, tile, inside) * ${PITCH}u;
  ${
      lines(
        range(SIDE).map((i) => /* wgsl */ `
  var x${i} = select(0.0, 1.0, column == ${i}u);
  ${lines(range(i).map((k) => `x${i} = fma(-tiles[start + ${i * PITCH + k}u], x${k}, x${i});`))}
  x${i} /= tiles[start + ${i * PITCH + i}u];`),
      )
    }
  workgroupBarrier();
  if (inside) { ${lines(range(SIDE).map((i) => `tiles[start + ${i * PITCH}u + column] = x${i};`))} }
}

@compute @workgroup_size(${SIDE * SIDE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) i: u32) {
  let x = i % ${SIDE}u;
  let y = i / ${SIDE}u;
  invertTiles(i);
  let first = group.x * ${SIDE}u;
  ${
      lines(VECTORS.map((v) =>
        `var rest${v} = select(vec4f(0), vec4f(1), vec4u(first + ${4 * v}u) + vec4u(0, 1, 2, 3) == vec4u(i));`
      ))
    }
  // Rows above the first column of the workgroup are zero.
  for (var start = first; start < ${block}u; start += ${SIDE}u) {
    let inTile = i >= start && i < start + ${SIDE}u;
    if (inTile) {
      ${
      lines(VECTORS.flatMap((v) =>
        range(4).map((c) =>
          `rest[(i - start) * ${PITCH}u + ${4 * v + c}u] = rest${v}[${c}];`
        )
      ))
    }
    }
    // On their way from memory while the panel is solved.
    ${lines(VECTORS.map((v) => `let own${v} = elements(i, start + ${4 * v}u);`))}
    workgroupBarrier();
    var solved = 0.0;
    for (var k = 0u; k < ${SIDE}u; k++) {
      solved = fma(tiles[(start + y) * ${PITCH}u + k], rest[k * ${PITCH}u + x], solved);
    }
    known[(y * ${SIDE}u + x) / 4u][x % 4u] = solved;
    workgroupBarrier();
    if (inTile) {
      ${lines(VECTORS.map((v) => `rest${v} = known[(i - start) * ${SIDE / 4}u + ${v}u];`))}
    } else if (i > start && i < ${block}u) {
      ${
      lines(
        range(SIDE).flatMap((k) =>
          VECTORS.map((v) =>
            `rest${v} = fma(vec4f(-own${Math.floor(k / 4)}[${k % 4}]), known[${
              k * SIDE / 4 + v
            }u], rest${v});`
          )
        ),
      )
    }
    }
  }
  if (i < ${block}u) {
    ${
      lines(
        VECTORS.map((v) => `inverses[(params.inverseBase + i * ${block}u + first) / 4u + ${v}u] = rest${v};`),
      )
    }
  }
}`,
  };
}

/** The kernels for blocks of {@linkcode WIDE_BLOCK} rows. */
export const CHOLESKY_FACTOR_BLOCK: Kernel = choleskyFactorBlock(WIDE_BLOCK);
export const INVERT_TRIANGULAR_BLOCK: Kernel = invertTriangularBlock(WIDE_BLOCK);
