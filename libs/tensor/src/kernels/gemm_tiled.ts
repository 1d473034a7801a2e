import { type GemmForm, type GemmKernel, gemmKernel, lines, PLACES, range } from "./gemm_interface.ts";

/** Shape of a tile in workgroup memory and of the block that each invocation computes of it. */
export interface TileShape {
  /** Rows and columns of C that a workgroup computes. */
  readonly rows: number;
  readonly columns: number;
  /** Length of the inner index that is staged at a time; a multiple of four. */
  readonly depth: number;
  /** Rows and columns of C that an invocation computes; multiples of four. */
  readonly rowsEach: number;
  readonly columnsEach: number;
}

/** How one operand is staged in workgroup memory: as vec4s along whichever of its axes is contiguous. */
interface Staging {
  readonly operand: "A" | "B";
  /** True when the contiguous axis is the inner index: a line is then a row of C, or a column. */
  readonly alongInner: boolean;
  readonly lineCount: number;
  /** vec4s in a line. */
  readonly perLine: number;
  /** vec4s from one line to the next: one more than there are, so that neighbouring lines lie in different memory banks. */
  readonly pitch: number;
  /** vec4s that each invocation loads. */
  readonly loads: number;
}

/** A form and a shape with all that follows from them. */
interface Plan {
  readonly form: GemmForm;
  readonly shape: TileShape;
  readonly threadsX: number;
  readonly threadsY: number;
  readonly threads: number;
  readonly a: Staging;
  readonly b: Staging;
}

function planOf(form: GemmForm, shape: TileShape): Plan {
  const threadsX = shape.columns / shape.columnsEach;
  const threadsY = shape.rows / shape.rowsEach;
  const threads = threadsX * threadsY;
  const stage = (operand: "A" | "B", alongInner: boolean, extent: number): Staging => {
    const lineCount = alongInner ? extent : shape.depth;
    const perLine = (alongInner ? shape.depth : extent) / 4;
    const loads = Math.ceil((lineCount * perLine) / threads);
    return { operand, alongInner, lineCount, perLine, pitch: perLine + 1, loads };
  };
  const a = stage("A", !form.transposeA, shape.rows);
  const b = stage("B", form.transposeB, shape.columns);
  return { form, shape, threadsX, threadsY, threads, a, b };
}

/** `loadA` or `loadB`: the vec4 with a given index in the tile that starts at k0, zero outside of the matrix. */
function loader({ form }: Plan, { operand, alongInner, perLine }: Staging): string {
  const [start, end] = operand === "A" ? ["rowStart", "params.m"] : ["columnStart", "params.n"];
  const name = operand.toLowerCase();
  const weight = form.weighted && operand === "B" ? " * weights[params.baseWeights + line]" : "";
  const read = form.vec4
    ? `if (along >= alongEnd) { return vec4f(0); }
  return ${name}[(start + along) / 4u]${weight};`
    : `var values = vec4f(0);
  ${
      lines(
        range(4).map((i) =>
          `if (along + ${i}u < alongEnd) { values[${i}] = ${name}[start + along + ${i}u]; }`
        ),
      )
    }
  return values${weight};`;
  return /* wgsl */ `
fn load${operand}(index: u32, k0: u32) -> vec4f {
  let line = ${alongInner ? start : "k0"} + index / ${perLine}u;
  let along = ${alongInner ? "k0" : start} + 4u * (index % ${perLine}u);
  let alongEnd = ${alongInner ? "kEnd" : end};
  if (line >= ${alongInner ? end : "kEnd"}) { return vec4f(0); }
  let start = first${operand} + line * params.stride${operand};
  ${read}
}`;
}

/** Fetches an invocation's share of a tile into registers: `var` the first time, assignments later. */
function fetch({ threads }: Plan, { operand, loads }: Staging, declare: boolean, k: string): string {
  return lines(
    range(loads).map((load) =>
      `${declare ? "var " : ""}next${operand}${load} = load${operand}(thread + ${load * threads}u, ${k});`
    ),
  );
}

/** Puts the fetched share into workgroup memory. */
function put({ threads }: Plan, { operand, lineCount, perLine, loads }: Staging): string {
  return lines(
    range(loads).map((load) => {
      const index = `(thread + ${load * threads}u)`;
      const write =
        `staged${operand}[${index} / ${perLine}u][${index} % ${perLine}u] = next${operand}${load};`;
      const partial = (load + 1) * threads > lineCount * perLine;
      return partial ? `if (${index} < ${lineCount * perLine}u) { ${write} }` : write;
    }),
  );
}

/**
 * Multiplies the staged tiles, four steps of the inner index at a time. An operand staged along the inner index gives four
 * steps of one row or column in a vec4; the other gives four rows or columns of one step.
 */
function multiply({ shape, threadsX, threadsY, a, b }: Plan): string {
  const rows = range(shape.rowsEach);
  const columnGroups = range(shape.columnsEach / 4);
  const fourSteps = (quad: number) => [
    ...a.alongInner ? rows.map((r) => `let a${r} = stagedA[ty + ${r * threadsY}u][${quad}];`) : [],
    ...b.alongInner
      ? range(shape.columnsEach).map((c) => `let b${c} = stagedB[tx + ${c * threadsX}u][${quad}];`)
      : [],
  ];
  const oneStep = (step: number) => [
    ...a.alongInner
      ? []
      : range(shape.rowsEach / 4).map((g) => `let rows${g} = stagedA[${step}][ty + ${g * threadsY}u];`),
    ...columnGroups.map((g) => {
      const gathered = `vec4f(${range(4).map((c) => `b${4 * g + c}[${step % 4}]`).join(", ")})`;
      return `let columns${g} = ${b.alongInner ? gathered : `stagedB[${step}][tx + ${g * threadsX}u]`};`;
    }),
    ...rows.flatMap((r) => {
      const x = a.alongInner ? `a${r}[${step % 4}]` : `rows${Math.floor(r / 4)}[${r % 4}]`;
      return columnGroups.map((g) => `sum${r}_${g} = fma(vec4f(${x}), columns${g}, sum${r}_${g});`);
    }),
  ];
  return lines(
    range(shape.depth / 4).map((quad) => {
      const steps = range(4).map((i) => `{ ${lines(oneStep(4 * quad + i))} }`);
      return `{ ${lines([...fourSteps(quad), ...steps])} }`;
    }),
  );
}

/** Names of the accumulators, row by row. */
function accumulators({ shape }: Plan): string[] {
  return range(shape.rowsEach).flatMap((r) => range(shape.columnsEach / 4).map((g) => `sum${r}_${g}`));
}

/** True when the columns of an invocation lie next to each other, so that a vec4 of C can be written whole. */
function storesVectors({ form, b }: Plan): boolean {
  return form.vec4 && !b.alongInner;
}

/** Writes the accumulators to C: loops with constant bounds, which a compiler unrolls where that pays. */
function store(plan: Plan): string {
  const { shape, threadsX, threadsY, a, b } = plan;
  const names = accumulators(plan);
  const row = a.alongInner ? `ty + r * ${threadsY}u` : `4u * (ty + r / 4u * ${threadsY}u) + r % 4u`;
  const column = b.alongInner ? `tx + (4u * g + i) * ${threadsX}u` : `4u * (tx + g * ${threadsX}u) + i`;
  const write = storesVectors(plan)
    ? `let column = columnStart + 4u * (tx + g * ${threadsX}u);
      if (column < params.n) { store((start + column) / 4u, sum); }`
    : `for (var i = 0u; i < 4u; i++) {
        let column = columnStart + ${column};
        if (column < params.n) { store(start + column, sum[i]); }
      }`;
  return `
  var sums = array<vec4f, ${names.length}>(${names.join(", ")});
  for (var r = 0u; r < ${shape.rowsEach}u; r++) {
    let row = rowStart + ${row};
    if (row >= params.m) { continue; }
    let start = startC + row * params.strideC;
    for (var g = 0u; g < ${shape.columnsEach / 4}u; g++) {
      let sum = sums[r * ${shape.columnsEach / 4}u + g];
      ${write}
    }
  }`;
}

/**
 * Matrix product for GPUs: tiles of A and B are staged in workgroup memory, each invocation accumulates a block of C in
 * named vec4s (an indexed array would spill), and the next tile travels into registers while this one is multiplied.
 */
export function gemmTiled(form: GemmForm, shape: TileShape): GemmKernel {
  const plan = planOf(form, shape);
  const { a, b, threads, threadsX, threadsY } = plan;
  const [blockX, blockY] = [Math.min(8, threadsX), Math.min(4, threadsY)];
  const { rows, columns, depth } = shape;
  const element = form.vec4 ? "vec4f" : "f32";
  const elementC = storesVectors(plan) ? "vec4f" : "f32";
  const code = /* wgsl */ `
var<workgroup> stagedA: array<array<vec4f, ${a.pitch}>, ${a.lineCount}>;
var<workgroup> stagedB: array<array<vec4f, ${b.pitch}>, ${b.lineCount}>;
/** Where the operands start. */
var<private> firstA: u32;
var<private> firstB: u32;
var<private> rowStart: u32;
var<private> columnStart: u32;
var<private> kEnd: u32;
${loader(plan, a)}
${loader(plan, b)}

fn store(index: u32, sum: ${elementC}) {
  if (params.beta == 0.0) { c[index] = params.alpha * sum; }
  else { c[index] = params.alpha * sum + params.beta * c[index]; }
}

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  rowStart = group.y * ${rows}u;
  columnStart = group.x * ${columns}u;
  if (params.lowerOnly != 0u && group.x * ${columns}u >= (group.y + 1u) * ${rows}u) { return; }
  ${PLACES}
  firstA = startA;
  firstB = startB;
  let kLimit = min(kStart + params.kPerSlice, params.k);
  kEnd = kLimit;
  // Subgroups are blocks of 8 × 4 invocations, which read fewer different values at a time than rows of 16 or 32 would.
  let tx = thread % ${blockX}u + thread / ${blockX * blockY}u % ${threadsX / blockX}u * ${blockX}u;
  let ty = thread / ${blockX}u % ${blockY}u + thread / ${blockY * threadsX}u * ${blockY}u;
  ${lines(accumulators(plan).map((name) => `var ${name} = vec4f(0);`))}
  ${fetch(plan, a, true, "kStart")}
  ${fetch(plan, b, true, "kStart")}
  for (var k = kStart; k < kLimit; k += ${depth}u) {
    workgroupBarrier();
    ${put(plan, a)}
    ${put(plan, b)}
    workgroupBarrier();
    if (k + ${depth}u < kLimit) {
      ${fetch(plan, a, false, `k + ${depth}u`)}
      ${fetch(plan, b, false, `k + ${depth}u`)}
    }
    ${multiply(plan)}
  }
  ${store(plan)}
}`;
  return {
    kernel: gemmKernel(
      `tiled_${rows}x${columns}x${depth}`,
      form,
      { a: element, b: element, c: elementC },
      code,
      {
        workgroupStorageBytes: 16 * (a.lineCount * a.pitch + b.lineCount * b.pitch),
        invocationsPerWorkgroup: threads,
      },
    ),
    tileRows: rows,
    tileColumns: columns,
  };
}
