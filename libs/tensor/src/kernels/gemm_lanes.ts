import { type GemmForm, type GemmKernel, gemmKernel, lines, places, range } from "./gemm_interface.ts";

/** The block of C that one subgroup keeps in registers, and how it reads. */
export interface LaneBlock {
  /** A multiple of 8. */
  readonly rows: number;
  /** Neighbouring columns of each lane. */
  readonly columnsEach: 2 | 4;
  /**
   * Terms of the inner index that one turn of the loop adds up, where an operand's rows run along it and are read as vec4s;
   * elsewhere it is always one.
   */
  readonly depth: 1 | 4;
}

/** Invocations of a workgroup and of a subgroup: one SIMD register of the CPUs that software drivers run on. */
export const LANES = 8;

/**
 * Matrix product for software drivers with subgroups. Such a driver loads for one lane after the other and checks the bounds
 * each time, also when all lanes want the same element, so that loads cost far more than arithmetic. Here no two lanes load the
 * same: each holds other elements of A, and the subgroup broadcasts them.
 *
 * Loads are also what the driver compiles slowest: each value that a lane loads takes as long as 15 multiplications of vec4s. So
 * large blocks take one term of the inner index at a time, which is fast where lanes load neighbours, that is with A transposed
 * and B as it is. Small blocks can afford four.
 */
export function gemmLanes(form: GemmForm, block: LaneBlock): GemmKernel {
  const { rows, columnsEach } = block;
  const tileColumns = LANES * columnsEach;
  const value = `vec${columnsEach}f`;
  const depth = form.vec4 && (!form.transposeA || form.transposeB) ? block.depth : 1;
  const a = operandA(form, rows, depth);
  const b = operandB(form, columnsEach, depth);
  const columns = range(columnsEach);
  const rowIndices = range(rows);
  // One sum after the other, so that only the values of B have to stay in registers.
  const sums = rowIndices.map((row) =>
    `sum${row} = ${
      range(depth).reduce((sum, p) => `fma(${value}(${a.element(row, p)}), y${p}, ${sum})`, `sum${row}`)
    };`
  );

  const code = /* wgsl */ `
@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let row = group.y * ${rows}u;
  let column = group.x * ${tileColumns}u + lane * ${columnsEach}u;
  // Not an early return, behind which the driver would mask every assignment.
  let skips = params.lowerOnly != 0u && group.x * ${tileColumns}u >= row + ${rows}u;
  let rowEnd = select(min(row + ${rows}u, params.m), row, skips);
  ${places(rows, tileColumns)}
  let kEnd = select(kLimit, kStart, skips);
  // Indices beyond the matrix are brought back into it; what they yield is not stored.
  ${lines([...a.offsets, ...b.offsets])}
  ${lines(rowIndices.map((r) => `var sum${r} = ${value}(0);`))}
  for (var k = kStart; k < kEnd; k += ${depth}u) {
    ${lines([...a.loads, ...b.loads])}
    ${lines(sums)}
  }
  // Stored one by one in loops that the driver does not unroll: the bounds checks of so many stores would take a second to compile.
  var sums = array<f32, ${rows * columnsEach}>(${
    rowIndices.flatMap((row) => columns.map((i) => `sum${row}[${i}]`)).join(", ")
  });
  var first = 0u;
  for (var rowC = row; rowC < rowEnd; rowC++) {
    let start = startC + rowC * params.strideC;
    for (var columnC = column; columnC < min(column + ${columnsEach}u, params.n); columnC++) {
      var result = params.alpha * sums[first + columnC - column];
      if (params.beta != 0.0) { result += params.beta * c[start + columnC]; }
      c[start + columnC] = result;
    }
    first += ${columnsEach}u;
  }
}`;
  return {
    kernel: gemmKernel(
      `lanes_${rows}x${tileColumns}`,
      form,
      { a: a.stored, b: b.stored, c: "f32" },
      code,
      { features: ["subgroups"], subgroupSize: LANES },
      ["enable subgroups;"],
    ),
    tileRows: rows,
    tileColumns,
  };
}

/** How lanes load A: WGSL before the loop, in the loop, and the broadcast element of a row and a term. */
interface OperandA {
  readonly offsets: readonly string[];
  readonly loads: readonly string[];
  readonly element: (row: number, p: number) => string;
  /** WGSL type of an element of the buffer. */
  readonly stored: string;
}

/** Each lane holds one row of every eight. */
function operandA({ transposeA, weighted }: GemmForm, rows: number, depth: number): OperandA {
  const groups = range(rows / LANES);
  const inA = (g: number) => `min(row + ${g * LANES}u + lane, params.m - 1u)`;
  const laneOf = (row: number) => `${row % LANES}u`;
  const groupOf = (row: number) => Math.floor(row / LANES);
  if (!transposeA && depth === 4) {
    return {
      offsets: groups.map((g) => `let a${g} = startA + ${inA(g)} * params.strideA;`),
      loads: groups.map((g) => `let x${g} = a[(a${g} + k) / 4u];`),
      element: (row, p) => `subgroupBroadcast(x${groupOf(row)}, ${laneOf(row)})[${p}]`,
      stored: "vec4f",
    };
  }
  return {
    offsets: groups.map((g) => `let a${g} = startA + ${inA(g)}${transposeA ? "" : " * params.strideA"};`),
    loads: range(depth).flatMap((p) => [
      ...weighted ? [`let weight${p} = weights[params.baseWeights + k + ${p}u];`] : [],
      ...groups.map((g) =>
        `let x${g}_${p} = a[a${g} + ${transposeA ? `(k + ${p}u) * params.strideA` : `k + ${p}u`}]${
          weighted ? ` * weight${p}` : ""
        };`
      ),
    ]),
    element: (row, p) => `subgroupBroadcast(x${groupOf(row)}_${p}, ${laneOf(row)})`,
    stored: "f32",
  };
}

/** How lanes load B: WGSL before the loop, and in the loop, which makes `y0`, `y1` and so on, one for each term. */
interface OperandB {
  readonly offsets: readonly string[];
  readonly loads: readonly string[];
  /** WGSL type of an element of the buffer. */
  readonly stored: string;
}

function operandB({ transposeB, vec4 }: GemmForm, columnsEach: 2 | 4, depth: number): OperandB {
  const columns = range(columnsEach);
  const terms = range(depth);
  const value = `vec${columnsEach}f`;
  const inB = (i: number) => `min(column + ${i}u, params.n - 1u)`;
  if (!transposeB && vec4) {
    return {
      offsets: [`let b0 = startB + min(column, params.n - ${columnsEach}u);`],
      loads: terms.map((p) => `let y${p} = b[(b0 + (k + ${p}u) * params.strideB) / ${columnsEach}u];`),
      stored: value,
    };
  }
  if (transposeB && depth === 4) {
    return {
      offsets: columns.map((i) => `let b${i} = startB + ${inB(i)} * params.strideB;`),
      loads: [
        ...columns.map((i) => `let z${i} = b[(b${i} + k) / 4u];`),
        ...terms.map((p) => `let y${p} = ${value}(${columns.map((i) => `z${i}[${p}]`).join(", ")});`),
      ],
      stored: "vec4f",
    };
  }
  return {
    offsets: columns.map((i) => `let b${i} = startB + ${inB(i)}${transposeB ? " * params.strideB" : ""};`),
    loads: terms.map((p) =>
      `let y${p} = ${value}(${
        columns.map((i) => `b[b${i} + ${transposeB ? `k + ${p}u` : `(k + ${p}u) * params.strideB`}]`).join(
          ", ",
        )
      });`
    ),
    stored: "f32",
  };
}
