import type { Kernel } from "../gpu/kernel.ts";
import { ROOT } from "./cholesky.ts";
import { lines, range } from "./gemm_interface.ts";

/** Rows and columns of a diagonal block that one workgroup factors. */
export const WIDE_BLOCK = 256;

/** Columns of a panel, and invocations along each axis of a tile. */
const SIDE = 16;
const VECTORS = range(SIDE / 4);
/** Values from one row of a tile in workgroup memory to the next: odd, so that rows lie in different memory banks. */
const PITCH = SIDE + 1;

/** Elements of a block that is continued by the identity, zero above the diagonal. */
const ELEMENTS = /* wgsl */ `
fn element(row: u32, column: u32) -> f32 {
  if (row >= params.size || column > row) { return select(0.0, 1.0, row == column); }
  return l[params.base + row * params.stride + column];
}
fn elements(row: u32, column: u32) -> vec4f {
  return vec4f(element(row, column), element(row, column + 1u), element(row, column + 2u), element(row, column + 3u));
}`;

/**
 * One column of a panel: the rows of the diagonal tile publish what they have of it, and every row subtracts its share from the columns
 * after it. Two buffers take turns, so that one barrier a column is enough.
 */
function eliminate(j: number): string {
  const [own, half] = [`r${Math.floor(j / 4)}[${j % 4}]`, j % 2 * (SIDE / 4)];
  return /* wgsl */ `
    if (inTile && row >= first + ${j}u) { column[${half}u + (row - first) / 4u][(row - first) % 4u] = ${own}; }
    workgroupBarrier();
    {
      let pivot = column[${half + Math.floor(j / 4)}][${j % 4}];
      let scale = 1.0 / root(pivot);
      if (row == first + ${j}u && row < params.size) { pivots[params.pivotStart + row] = pivot; }
      let done = ${own} * scale;
      let share = done * scale;
      ${
    lines(
      VECTORS.filter((v) => 4 * v + 3 > j).map((v) =>
        `r${v} = fma(vec4f(-share), ${after(j, v, half)}, r${v});`
      ),
    )
  }
      ${own} = done;
    }`;
}

/** What was published of column j for the columns after it, zero for those up to it. */
function after(j: number, v: number, half: number): string {
  const published = `column[${half + v}]`;
  return 4 * v > j
    ? published
    : `select(vec4f(0), ${published}, vec4<bool>(${range(4).map((i) => 4 * v + i > j)}))`;
}

/**
 * Factors one diagonal block of up to `block` rows, a multiple of 16, one row an invocation. Panel by panel of 16 columns: what the columns
 * before contribute is subtracted, then the panel is factored in registers. Panels are a loop, because code that runs only once waits for
 * its instructions. Beyond the parameter `size` the block is continued by the identity.
 */
export function choleskyFactorBlock(block: number): Kernel {
  return {
    name: `cholesky_factor_block_${block}`,
    buffers: [
      { name: "l", element: "f32", access: "read_write" },
      { name: "pivots", element: "f32", access: "read_write" },
    ],
    params: [["size", "u32"], ["stride", "u32"], ["base", "u32"], ["pivotStart", "u32"]],
    requires: { workgroupStorageBytes: 4 * SIDE * (block + 2), invocationsPerWorkgroup: block },
    code: /* wgsl */ `
/** Rows of the panel's diagonal tile left of it, [column][row]. */
var<workgroup> known: array<vec4f, ${block * SIDE / 4}>;
var<workgroup> column: array<vec4f, ${2 * SIDE / 4}>;
${ROOT}
${ELEMENTS}
fn store(row: u32, column: u32, values: vec4f) {
  for (var i = 0u; i < 4u; i++) {
    if (row < params.size && column + i <= row) { l[params.base + row * params.stride + column + i] = values[i]; }
  }
}

@compute @workgroup_size(${block})
fn main(@builtin(local_invocation_index) row: u32) {
  for (var first = 0u; first < ${block}u; first += ${SIDE}u) {
    for (var k = row % ${SIDE}u; k < first; k += ${SIDE}u) {
      for (var c = row / ${SIDE}u; c < ${SIDE}u; c += ${block / SIDE}u) {
        known[k * ${SIDE / 4}u + c / 4u][c % 4u] = element(first + c, k);
      }
    }
    workgroupBarrier();
    ${lines(VECTORS.map((v) => `var r${v} = elements(row, first + ${4 * v}u);`))}
    if (row >= first) {
      for (var start = 0u; start < first; start += ${SIDE}u) {
        ${lines(VECTORS.map((v) => `let own${v} = elements(row, start + ${4 * v}u);`))}
        ${
      lines(
        range(SIDE).flatMap((k) =>
          VECTORS.map((v) =>
            `r${v} = fma(vec4f(-own${Math.floor(k / 4)}[${k % 4}]), known[(start + ${k}u) * ${
              SIDE / 4
            }u + ${v}u], r${v});`
          )
        ),
      )
    }
      }
    }
    let inTile = row >= first && row < first + ${SIDE}u;
    ${lines(range(SIDE).map(eliminate))}
    ${lines(VECTORS.map((v) => `store(row, first + ${4 * v}u, r${v});`))}
    storageBarrier();
    workgroupBarrier();
  }
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
${ELEMENTS}

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
