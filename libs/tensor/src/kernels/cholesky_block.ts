import type { Kernel } from "../gpu/kernel.ts";
import { ROOT } from "./cholesky.ts";
import { lines, range } from "./gemm_interface.ts";

/** Rows and columns of a diagonal block that one workgroup factors. */
export const WIDE_BLOCK = 256;

/** Invocations along each axis; invocation (x, y) owns the elements (16 a + y, 16 b + x). */
const SIDE = 16;

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
    if (thread == 0u && ${SIDE * p}u + q < params.size) { pivots[params.pivotStart + ${
    SIDE * p
  }u + q] = pivot; }
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
    requires: { workgroupStorageBytes: 8 * block, invocationsPerWorkgroup: SIDE * SIDE },
    code: /* wgsl */ `
var<workgroup> column: array<f32, ${2 * block}>;
${ROOT}
fn element(row: u32, column: u32) -> f32 {
  if (row >= params.size || column > row) { return select(0.0, 1.0, row == column); }
  return l[params.base + row * params.stride + column];
}
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
}`,
  };
}

/** Columns of the inverse that a workgroup computes. */
export const INVERSE_COLUMNS = 16;
const VECTORS = INVERSE_COLUMNS / 4;
/** Columns of L that are read at a time. */
const AHEAD = 4;

/**
 * Inverts a factored diagonal block by forward substitution, 16 columns of the identity a workgroup. Invocation i owns row i; the
 * owner of a row publishes it when it is done, and everyone below subtracts its share.
 */
export function invertTriangularBlock(block: number): Kernel {
  return {
    name: `invert_triangular_block_${block}`,
    buffers: [
      { name: "l", element: "f32", access: "read" },
      { name: "inverses", element: "vec4f", access: "read_write" },
    ],
    params: [["size", "u32"], ["stride", "u32"], ["base", "u32"], ["inverseBase", "u32"]],
    requires: { workgroupStorageBytes: 32 * VECTORS, invocationsPerWorkgroup: block },
    code: /* wgsl */ `
var<workgroup> known: array<vec4f, ${2 * VECTORS}>;

fn element(row: u32, column: u32) -> f32 {
  if (row >= params.size || column > row) { return select(0.0, 1.0, row == column); }
  return l[params.base + row * params.stride + column];
}

@compute @workgroup_size(${block})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) i: u32) {
  let first = group.x * ${INVERSE_COLUMNS}u;
  let reciprocal = 1.0 / element(i, i);
  ${
      lines(
        range(VECTORS).map((v) =>
          `var rest${v} = select(vec4f(0), vec4f(1), vec4u(first + ${
            4 * v
          }u) + vec4u(0, 1, 2, 3) == vec4u(i));`
        ),
      )
    }
  // Rows above the first column of the workgroup are zero.
  for (var start = first; start < ${block}u; start += ${AHEAD}u) {
    ${
      lines(range(AHEAD).map((s) => `let l${s} = select(0.0, element(i, start + ${s}u), i > start + ${s}u);`))
    }
    ${
      lines(
        range(AHEAD).map((s) => /* wgsl */ `
    if (i == start + ${s}u) { ${
          lines(
            range(VECTORS).map((v) => `rest${v} *= reciprocal; known[${s % 2 * VECTORS + v}u] = rest${v};`),
          )
        } }
    workgroupBarrier();
    ${
          lines(
            range(VECTORS).map((v) =>
              `rest${v} = fma(vec4f(-l${s}), known[${s % 2 * VECTORS + v}u], rest${v});`
            ),
          )
        }`),
      )
    }
  }
  ${
      lines(
        range(VECTORS).map((v) =>
          `inverses[(params.inverseBase + i * ${block}u + first) / 4u + ${v}u] = rest${v};`
        ),
      )
    }
}`,
  };
}

/** The kernels for blocks of {@linkcode WIDE_BLOCK} rows. */
export const CHOLESKY_FACTOR_BLOCK: Kernel = choleskyFactorBlock(WIDE_BLOCK);
export const INVERT_TRIANGULAR_BLOCK: Kernel = invertTriangularBlock(WIDE_BLOCK);
