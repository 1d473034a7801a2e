import { type GemmForm, type GemmKernel, gemmKernel, lines, range } from "./gemm_interface.ts";

/** The block of C that one subgroup keeps in registers. */
export interface LaneBlock {
  /** A multiple of 8. */
  readonly rows: number;
  /** Neighbouring columns of each lane. */
  readonly columnsEach: 1 | 4;
}

/** Invocations of a workgroup and of a subgroup: one SIMD register of the CPUs that software drivers run on. */
export const LANES = 8;

/** Terms of the inner index that one turn of the loop adds up. */
const DEPTH = 4;

/**
 * Matrix product for software drivers with subgroups. Such a driver loads for one lane after the other and checks the bounds
 * each time, also when all lanes want the same element, so that loads cost far more than arithmetic. Here no two lanes load the
 * same: each holds other elements of A, and the subgroup broadcasts them.
 */
export function gemmLanes(form: GemmForm, { rows, columnsEach }: LaneBlock): GemmKernel {
  const tileColumns = LANES * columnsEach;
  const value = columnsEach === 4 ? "vec4f" : "f32";
  const wide = form.vec4 && columnsEach === 4;
  const a = operandA(form, rows);
  const b = operandB(form, columnsEach);
  const depth = range(DEPTH);
  const rowIndices = range(rows);
  // One sum after the other, so that only the values of B have to stay in registers.
  const sums = rowIndices.map((row) =>
    `sum${row} = ${
      depth.reduce((sum, p) => `fma(${value}(${a.element(row, p)}), y${p}, ${sum})`, `sum${row}`)
    };`
  );
  const storeSum = wide
    ? `if (column < params.n) { store((start + column) / 4u, sums[i]); }`
    : columnsEach === 1
    ? `if (column < params.n) { store(start + column, sums[i]); }`
    : `for (var j = 0u; j < 4u && column + j < params.n; j++) { store(start + column + j, sums[i][j]); }`;
  const stored = wide ? "vec4f" : "f32";

  const code = /* wgsl */ `
fn store(index: u32, sum: ${stored}) {
  var result = params.alpha * sum;
  if (params.beta != 0.0) { result += params.beta * c[index]; }
  c[index] = result;
}

@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let row = group.y * ${rows}u;
  let column = group.x * ${tileColumns}u + lane * ${columnsEach}u;
  if (params.lowerOnly != 0u && group.x * ${tileColumns}u >= row + ${rows}u) { return; }
  let kStart = group.z * params.kPerSlice;
  let kEnd = min(kStart + params.kPerSlice, params.k);
  // Indices beyond the matrix are brought back into it; what they yield is not stored, or multiplied by zero.
  ${lines([...a.offsets, ...b.offsets])}
  ${lines(rowIndices.map((r) => `var sum${r} = ${value}(0);`))}
  for (var k = kStart; k < kEnd; k += ${DEPTH}u) {
    ${
    lines(depth.map((p) => `let k${p} = ${mayEndWithin(form) ? `min(k + ${p}u, kEnd - 1u)` : `k + ${p}u`};`))
  }
    ${lines([...a.loads, ...b.loads])}
    ${lines(sums)}
  }
  // Stored in a loop that the driver does not unroll: the bounds checks of so many stores would take a second to compile.
  var sums = array<${value}, ${rows}>(${rowIndices.map((r) => `sum${r}`).join(", ")});
  var i = 0u;
  for (var rowC = row; rowC < min(row + ${rows}u, params.m); rowC++) {
    let start = params.baseC + group.z * params.sliceStride + rowC * params.strideC;
    ${storeSum}
    i++;
  }
}`;
  return {
    kernel: gemmKernel(
      `lanes_${rows}x${tileColumns}`,
      form,
      { a: form.vec4 ? "vec4f" : "f32", b: b.vectors ? "vec4f" : "f32", c: stored },
      code,
      { features: ["subgroups"], subgroupSize: LANES },
      ["enable subgroups;"],
    ),
    tileRows: rows,
    tileColumns,
  };
}

/** True when the inner index may end within one turn of the loop: when it is the length of no row read as vec4s. */
function mayEndWithin({ vec4, transposeA, transposeB }: GemmForm): boolean {
  return !vec4 || (transposeA && !transposeB);
}

/** How lanes load A: WGSL before the loop, in the loop, and the broadcast element of a row and a term. */
interface OperandA {
  readonly offsets: readonly string[];
  readonly loads: readonly string[];
  readonly element: (row: number, p: number) => string;
}

function operandA(form: GemmForm, rows: number): OperandA {
  return form.transposeA ? columnsOfA(form, rows) : rowsOfA(form, rows);
}

/** Each lane holds `DEPTH` neighbours of one row. */
function rowsOfA(form: GemmForm, rows: number): OperandA {
  const groups = range(rows / LANES);
  const inside = `vec4<bool>(${range(DEPTH).map((p) => `k + ${p}u < kEnd`).join(", ")})`;
  return {
    offsets: groups.map((g) =>
      `let rowA${g} = params.baseA + min(row + ${g * LANES}u + lane, params.m - 1u) * params.strideA;`
    ),
    loads: groups.map((g) =>
      form.vec4
        ? `let a${g} = a[(rowA${g} + k) / 4u];`
        : `let a${g} = select(vec4f(0), vec4f(${
          range(DEPTH).map((p) => `a[rowA${g} + k${p}]`).join(", ")
        }), ${inside});`
    ),
    element: (row, p) => `subgroupBroadcast(a${Math.floor(row / LANES)}, ${row % LANES}u)[${p}]`,
  };
}

/** Each lane holds four neighbours of one column; a load covers all rows for as many terms as there are lanes. */
function columnsOfA(form: GemmForm, rows: number): OperandA {
  const quads = Math.min(rows / 4, LANES);
  const terms = LANES / quads;
  const blocks = rows / (4 * quads);
  const parts = range(blocks).flatMap((g) => range(DEPTH / terms).map((j) => ({ g, j })));
  return {
    offsets: [
      `let termA = lane / ${quads}u;`,
      ...range(blocks).map((g) => `let rowA${g} = row + ${4 * quads * g}u + lane % ${quads}u * 4u;`),
    ],
    loads: [
      ...range(DEPTH / terms).flatMap((j) => [
        `let p${j} = k + ${j * terms}u + termA;`,
        `let columnA${j} = params.baseA + min(p${j}, kEnd - 1u) * params.strideA;`,
        ...form.weighted ? [`let weight${j} = weights[params.baseWeights + min(p${j}, kEnd - 1u)];`] : [],
      ]),
      ...parts.map(({ g, j }) => {
        const values = form.vec4
          ? `a[(columnA${j} + min(rowA${g}, params.m - 4u)) / 4u]`
          : `vec4f(${
            range(4).map((i) => `a[columnA${j} + min(rowA${g} + ${i}u, params.m - 1u)]`).join(", ")
          })`;
        return `let a${g}_${j} = select(vec4f(0), ${values}${
          form.weighted ? ` * weight${j}` : ""
        }, p${j} < kEnd);`;
      }),
    ],
    element: (row, p) => {
      const lane = p % terms * quads + Math.floor(row / 4) % quads;
      return `subgroupBroadcast(a${Math.floor(row / (4 * quads))}_${Math.floor(p / terms)}, ${lane}u)[${
        row % 4
      }]`;
    },
  };
}

/** How lanes load B: WGSL before the loop, and in the loop, which makes `y0`, `y1` and so on. */
interface OperandB {
  readonly offsets: readonly string[];
  readonly loads: readonly string[];
  /** Whether B is read as vec4s. */
  readonly vectors: boolean;
}

function operandB({ transposeB, vec4 }: GemmForm, columnsEach: 1 | 4): OperandB {
  const columns = range(columnsEach);
  const depth = range(DEPTH);
  const vectors = vec4 && (transposeB || columnsEach === 4);
  const inB = (i: number) => `min(column + ${i}u, params.n - 1u)`;
  if (!transposeB) {
    return {
      offsets: vectors
        ? ["let columnB = min(column, params.n - 4u);"]
        : columns.map((i) => `let columnB${i} = ${inB(i)};`),
      loads: depth.flatMap((p) => [
        `let rowB${p} = params.baseB + k${p} * params.strideB;`,
        `let y${p} = ${
          vectors ? `b[(rowB${p} + columnB) / 4u]` : join(columns.map((i) => `b[rowB${p} + columnB${i}]`))
        };`,
      ]),
      vectors,
    };
  }
  return {
    offsets: columns.map((i) => `let rowB${i} = params.baseB + ${inB(i)} * params.strideB;`),
    loads: [
      ...columns.map((i) =>
        `let b${i} = ${
          vectors ? `b[(rowB${i} + k) / 4u]` : `vec4f(${depth.map((p) => `b[rowB${i} + k${p}]`).join(", ")})`
        };`
      ),
      ...depth.map((p) => `let y${p} = ${join(columns.map((i) => `b${i}[${p}]`))};`),
    ],
    vectors,
  };
}

/** One value, or four as a vec4f. */
function join(values: readonly string[]): string {
  return values.length === 1 ? values[0]! : `vec4f(${values.join(", ")})`;
}
