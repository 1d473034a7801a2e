import { type GemmForm, type GemmKernel, gemmKernel, lines, places, range } from "./gemm_interface.ts";

/** Rows and vec4 columns of C that one invocation keeps in registers. */
export interface RegisterBlock {
  readonly rows: number;
  readonly vectors: number;
}

/** Invocations of a workgroup, all in one row of blocks: one SIMD register of the CPUs that software drivers run on. */
const LANES = 8;

/**
 * Matrix product without workgroup memory, for drivers that run on the CPU, where such memory only costs. All invocations
 * of a workgroup read the same rows of A, so the driver loads each element of A once and broadcasts it.
 */
export function gemmRegisters(form: GemmForm, { rows, vectors }: RegisterBlock): GemmKernel {
  // Reading four values along the rows of Bᵀ at once was tried: it is slower and takes three times as long to compile.
  const wholeB = form.vec4 && !form.transposeB;
  const rowIndices = range(rows);
  const vectorIndices = range(vectors);

  const columnOffsets = vectorIndices.flatMap((v) =>
    wholeB
      ? [`let b${v} = min(first${v}, params.n - 4u);`]
      : range(4).map((i) =>
        `let b${v}_${i} = min(first${v} + ${i}u, params.n - 1u)${form.transposeB ? " * params.strideB" : ""};`
      )
  );
  const valuesOfB = vectorIndices.map((v) => {
    const weight = form.weighted ? " * weights[params.baseWeights + k]" : "";
    const values = wholeB
      ? `b[(rowB + b${v}) / 4u]`
      : `vec4f(${range(4).map((i) => `b[rowB + b${v}_${i}]`).join(", ")})`;
    return `let y${v} = ${values}${weight};`;
  });
  const multiply = rowIndices.map((row) => {
    const x = form.transposeA ? `a[columnA + a${row}]` : `a[a${row} + k]`;
    const sums = vectorIndices.map((v) => `acc${row}_${v} = fma(vec4f(x), y${v}, acc${row}_${v});`);
    return `{ let x = ${x}; ${sums.join(" ")} }`;
  });
  const accumulators = rowIndices.flatMap((row) => vectorIndices.map((v) => `acc${row}_${v}`));
  const storeVector = form.vec4
    ? `if (column < params.n) { store((start + column) / 4u, sums[i]); }`
    : `for (var j = 0u; j < 4u && column + j < params.n; j++) { store(start + column + j, sums[i][j]); }`;
  const value = form.vec4 ? "vec4f" : "f32";

  const code = /* wgsl */ `
fn store(index: u32, sum: ${value}) {
  if (params.beta == 0.0) { c[index] = params.alpha * sum; }
  else { c[index] = params.alpha * sum + params.beta * c[index]; }
}

@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row = group.y * ${rows}u;
  if (params.lowerOnly != 0u && group.x * ${4 * vectors * LANES}u >= row + ${rows}u) { return; }
  ${places(rows, 4 * vectors * LANES)}
  // Indices beyond the matrix are brought back into it; what they yield is not stored.
  ${
    lines(rowIndices.map((r) =>
      `let a${r} = startA + min(row + ${r}u, params.m - 1u)${form.transposeA ? "" : " * params.strideA"};`
    ))
  }
  ${
    lines(
      vectorIndices.map((v) =>
        `let first${v} = 4u * ((group.x * ${LANES}u + local.x) * ${vectors}u + ${v}u);`
      ),
    )
  }
  ${lines(columnOffsets)}
  ${lines(accumulators.map((name) => `var ${name} = vec4f(0);`))}
  for (var k = kStart; k < kLimit; k++) {
    let rowB = startB + k${form.transposeB ? "" : " * params.strideB"};
    ${form.transposeA ? "let columnA = k * params.strideA;" : ""}
    ${lines(valuesOfB)}
    ${lines(multiply)}
  }
  // Stored in a loop: unrolled, the bounds checks of so many stores would take a second to compile.
  var sums = array<vec4f, ${rows * vectors}>(${accumulators.join(", ")});
  var i = 0u;
  for (var rowC = row; rowC < min(row + ${rows}u, params.m); rowC++) {
    let start = startC + rowC * params.strideC;
    for (var column = first0; column < first0 + ${4 * vectors}u; column += 4u) {
      ${storeVector}
      i++;
    }
  }
}`;
  return {
    kernel: gemmKernel(
      `registers_${rows}x${4 * vectors}`,
      form,
      { a: "f32", b: wholeB ? "vec4f" : "f32", c: value },
      code,
      {},
    ),
    tileRows: rows,
    tileColumns: 4 * vectors * LANES,
  };
}
