import { type GemmForm, type GemmKernel, gemmKernel, lines, places, range } from "./gemm_interface.ts";

/** Shape of a tile in workgroup memory and of the block that each invocation computes of it. */
export interface TileShape {
  /** Rows and columns of C that a workgroup computes; times `depth / 4`, multiples of the number of invocations. */
  readonly rows: number;
  readonly columns: number;
  /** Length of the inner index that is staged at a time; a multiple of four. */
  readonly depth: number;
  /** Rows and columns of C that an invocation computes; multiples of four. */
  readonly rowsEach: number;
  readonly columnsEach: number;
}

/**
 * How one operand travels to workgroup memory. A line there holds one step of the inner index, and all of the operand's rows of C, or
 * columns. Where the inner index runs along memory, it does so in workgroup memory, too, and a line belongs to one of every four rows.
 */
interface Staging {
  readonly operand: "A" | "B";
  /** True when the inner index runs along memory. */
  readonly alongInner: boolean;
  /** Lines, and vec4s in each. */
  readonly lines: number;
  readonly perLine: number;
  /** vec4s from one row to the next where the inner index runs along memory: odd, so that neighbours lie in different memory banks. */
  readonly pitch: number;
  /** Rows of C, or columns, that an invocation computes, and how many invocations share those of the tile. */
  readonly each: number;
  readonly sharers: number;
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
  /** Steps of the inner index in a tile, by four. */
  readonly quads: number;
  readonly a: Staging;
  readonly b: Staging;
}

function planOf(form: GemmForm, shape: TileShape): Plan {
  const { rows, columns, depth, rowsEach, columnsEach } = shape;
  const threadsX = columns / columnsEach;
  const threadsY = rows / rowsEach;
  const threads = threadsX * threadsY;
  const quads = depth / 4;
  const pitch = quads + 1 - quads % 2;
  const stage = (operand: "A" | "B", alongInner: boolean, each: number, sharers: number): Staging => {
    const fours = each * sharers / 4;
    const [lines, perLine] = alongInner ? [4, fours * pitch] : [depth, fours];
    return { operand, alongInner, lines, perLine, pitch, each, sharers, loads: fours * depth / threads };
  };
  const a = stage("A", !form.transposeA, rowsEach, threadsY);
  const b = stage("B", form.transposeB, columnsEach, threadsX);
  return { form, shape, threadsX, threadsY, threads, quads, a, b };
}

/** One vec4 that every invocation carries to workgroup memory. */
interface Load {
  readonly staging: Staging;
  readonly name: string;
  /** Where it starts, from the start of the tile: along the inner index, and along the rows or columns of C. */
  readonly inner: string;
  readonly outer: string;
  /** Its line in workgroup memory, and its place there. */
  readonly line: string;
  readonly place: string;
}

function loadsOf({ threads, quads }: Plan, staging: Staging): Load[] {
  const { operand, alongInner, perLine, pitch, each, sharers, loads } = staging;
  const fours = each * sharers / 4;
  return range(loads).map((load) => {
    const name = `${operand}${load}`;
    const flat = `(thread + ${load * threads}u)`;
    if (!alongInner) {
      const [line, place] = [`${flat} / ${perLine}u`, `${flat} % ${perLine}u`];
      return { staging, name, inner: line, outer: `4u * (${place})`, line, place };
    }
    const [quad, row] = [`${flat} % ${quads}u`, `${flat} / ${quads}u`];
    const [line, four] = [`${row} / ${fours}u`, `${row} % ${fours}u`];
    return {
      staging,
      name,
      inner: `4u * (${quad})`,
      outer: `4u * (${four}) + ${line}`,
      line,
      place: `${four} * ${pitch}u + ${quad}`,
    };
  });
}

/** Everything that an invocation carries. */
function allLoads(plan: Plan): Load[] {
  return [plan.a, plan.b].flatMap((staging) => loadsOf(plan, staging));
}

function tileStart({ operand }: Staging): string {
  return operand === "A" ? "rowStart" : "columnStart";
}

/** True for the operand whose elements are multiplied by weights as they are loaded. */
function isWeighted({ form }: Plan, { operand }: Staging): boolean {
  return form.weighted && operand === "B";
}

/** `loadA` or `loadB`: four elements along memory from a place in the matrix, zero outside of it. */
function loader(plan: Plan, staging: Staging): string {
  const { operand, alongInner } = staging;
  const [line, along] = alongInner ? ["outer", "inner"] : ["inner", "outer"];
  const [outerEnd, innerEnd] = [operand === "A" ? "params.m" : "params.n", "kEnd"];
  const [lineEnd, alongEnd] = alongInner ? [outerEnd, innerEnd] : [innerEnd, outerEnd];
  const name = operand.toLowerCase();
  const weight = isWeighted(plan, staging) ? " * weights[params.baseWeights + inner]" : "";
  const read = plan.form.vec4
    ? `if (${along} >= ${alongEnd}) { return vec4f(0); }
  return ${name}[(start + ${along}) / 4u]${weight};`
    : `var values = vec4f(0);
  ${
      lines(
        range(4).map((i) =>
          `if (${along} + ${i}u < ${alongEnd}) { values[${i}] = ${name}[start + ${along} + ${i}u]; }`
        ),
      )
    }
  return values${weight};`;
  return /* wgsl */ `
fn load${operand}(inner: u32, outer: u32) -> vec4f {
  if (${line} >= ${lineEnd}) { return vec4f(0); }
  let start = first${operand} + ${line} * params.stride${operand};
  ${read}
}`;
}

/** Where the first tile's elements lie, for loads that need no check: indices that move on by the same step for every tile. */
function cursors(plan: Plan): string {
  if (!plan.form.vec4) return "";
  const places = allLoads(plan).map(({ staging, name, inner, outer }) => {
    const { operand, alongInner } = staging;
    const [k, other] = [`(kStart + ${inner})`, `(${tileStart(staging)} + ${outer})`];
    const place = alongInner
      ? `${other} * params.stride${operand} + ${k}`
      : `${k} * params.stride${operand} + ${other}`;
    return lines([
      `var at${name} = (first${operand} + ${place}) / 4u;`,
      ...isWeighted(plan, staging) ? [`var weightAt${name} = params.baseWeights + ${k};`] : [],
    ]);
  });
  const steps = [plan.a, plan.b].map(({ operand, alongInner }) =>
    `let step${operand} = ${alongInner ? `${plan.quads}u` : `${plan.quads}u * params.stride${operand}`};`
  );
  return lines([...places, ...steps]);
}

/**
 * Fetches an invocation's share of the tile at `k` into registers. Tiles inside of both matrices need no checks, which take a
 * tenth of the time of the whole product otherwise.
 */
function fetch(plan: Plan, k: string): string {
  const loads = allLoads(plan);
  const checked = lines(
    loads.map(({ staging, name, inner, outer }) =>
      `next${name} = load${staging.operand}(${k} + ${inner}, ${tileStart(staging)} + ${outer});`
    ),
  );
  if (!plan.form.vec4) return checked;
  const unchecked = loads.map(({ staging, name }) => {
    const weight = isWeighted(plan, staging) ? ` * weights[weightAt${name}]` : "";
    return `next${name} = ${staging.operand.toLowerCase()}[at${name}]${weight};`;
  });
  const move = loads.flatMap(({ staging, name }) => [
    `at${name} += step${staging.operand};`,
    ...isWeighted(plan, staging) ? [`weightAt${name} += ${plan.shape.depth}u;`] : [],
  ]);
  return /* wgsl */ `
  if (isInside && ${k} + ${plan.shape.depth}u <= kLimit) {
    ${lines(unchecked)}
  } else {
    ${checked}
  }
  ${lines(move)}`;
}

/** Puts the fetched share into workgroup memory. */
function put(plan: Plan): string {
  return lines(
    allLoads(plan).map(({ staging: { operand }, name, line, place }) =>
      `staged${operand}[${line}][${place}] = next${name};`
    ),
  );
}

/** Reads what four steps of the inner index, from `4 · quad`, take of an operand whose inner index runs along memory. */
function readQuad({ operand, alongInner, each, sharers, pitch }: Staging, quad: number): string[] {
  if (!alongInner) return [];
  const thread = operand === "A" ? "ty" : "tx";
  return range(each).map((i) =>
    `let quad${operand}${i} = staged${operand}[${i % 4}][(${thread} + ${
      Math.floor(i / 4) * sharers
    }u) * ${pitch}u + ${quad}u];`
  );
}

/** `rows0`, … or `columns0`, …: an operand's elements at one step of the inner index, by four. */
function readStep({ operand, alongInner, each, sharers }: Staging, step: number): string[] {
  const [name, thread] = operand === "A" ? ["rows", "ty"] : ["columns", "tx"];
  return range(each / 4).map((g) => {
    const elements = range(4).map((i) => `quad${operand}${4 * g + i}[${step % 4}]`);
    return `let ${name}${g} = ${
      alongInner ? `vec4f(${elements.join(", ")})` : `staged${operand}[${step}][${thread} + ${g * sharers}u]`
    };`;
  });
}

/** Multiplies a staged tile, step by step: the outer product of a column of A and a row of B. */
function multiply({ shape, quads, a, b }: Plan): string {
  const oneStep = (step: number) => [
    ...readStep(a, step),
    ...readStep(b, step),
    ...range(shape.rowsEach).flatMap((r) =>
      range(shape.columnsEach / 4).map((g) =>
        `sum${r}_${g} = fma(vec4f(rows${Math.floor(r / 4)}[${r % 4}]), columns${g}, sum${r}_${g});`
      )
    ),
  ];
  return lines(
    range(quads).map((quad) =>
      `{ ${
        lines([
          ...readQuad(a, quad),
          ...readQuad(b, quad),
          ...range(4).map((i) => `{ ${lines(oneStep(4 * quad + i))} }`),
        ])
      } }`
    ),
  );
}

/** Names of the accumulators, row by row. */
function accumulators({ shape }: Plan): string[] {
  return range(shape.rowsEach).flatMap((r) => range(shape.columnsEach / 4).map((g) => `sum${r}_${g}`));
}

/** Writes the accumulators to C: loops with constant bounds, which a compiler unrolls where that pays. */
function store(plan: Plan): string {
  const { form, shape, threadsX, threadsY } = plan;
  const names = accumulators(plan);
  const write = form.vec4
    ? `if (column < params.n) { store((start + column) / 4u, sum); }`
    : `for (var i = 0u; i < 4u; i++) {
        if (column + i < params.n) { store(start + column + i, sum[i]); }
      }`;
  return `
  var sums = array<vec4f, ${names.length}>(${names.join(", ")});
  for (var r = 0u; r < ${shape.rowsEach}u; r++) {
    let row = rowStart + 4u * (ty + r / 4u * ${threadsY}u) + r % 4u;
    if (row >= params.m) { continue; }
    let start = startC + row * params.strideC;
    for (var g = 0u; g < ${shape.columnsEach / 4}u; g++) {
      let sum = sums[r * ${shape.columnsEach / 4}u + g];
      let column = columnStart + 4u * (tx + g * ${threadsX}u);
      ${write}
    }
  }`;
}

/**
 * Matrix product for GPUs: tiles of A and B are staged in workgroup memory, and each invocation accumulates a block of C in named
 * vec4s (an indexed array would spill). While one tile is multiplied, the next travels into registers. The two barriers of a tile cost less
 * than a second buffer, whose place changes from tile to tile.
 */
export function gemmTiled(form: GemmForm, shape: TileShape): GemmKernel {
  const plan = planOf(form, shape);
  const { a, b, threads, threadsX, threadsY } = plan;
  const [blockX, blockY] = [Math.min(8, threadsX), Math.min(4, threadsY)];
  const { rows, columns, depth } = shape;
  const element = form.vec4 ? "vec4f" : "f32";
  const code = /* wgsl */ `
var<workgroup> stagedA: array<array<vec4f, ${a.perLine}>, ${a.lines}>;
var<workgroup> stagedB: array<array<vec4f, ${b.perLine}>, ${b.lines}>;
/** Where the operands start. */
var<private> firstA: u32;
var<private> firstB: u32;
var<private> rowStart: u32;
var<private> columnStart: u32;
var<private> kEnd: u32;
${loader(plan, a)}
${loader(plan, b)}

fn store(index: u32, sum: ${element}) {
  if (params.beta == 0.0) { c[index] = params.alpha * sum; }
  else { c[index] = params.alpha * sum + params.beta * c[index]; }
}

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  rowStart = group.y * ${rows}u;
  columnStart = group.x * ${columns}u;
  if (params.lowerOnly != 0u && group.x * ${columns}u >= (group.y + 1u) * ${rows}u) { return; }
  ${places(rows, columns)}
  firstA = startA;
  firstB = startB;
  // Loops go by the local, because barriers may not depend on what could differ between invocations, as far as the language sees.
  kEnd = kLimit;
  let isInside = rowStart + ${rows}u <= params.m && columnStart + ${columns}u <= params.n;
  // Subgroups are blocks of 8 × 4 invocations, which read fewer different values at a time than rows of 16 or 32 would.
  let tx = thread % ${blockX}u + thread / ${blockX * blockY}u % ${threadsX / blockX}u * ${blockX}u;
  let ty = thread / ${blockX}u % ${blockY}u + thread / ${blockY * threadsX}u * ${blockY}u;
  ${lines(accumulators(plan).map((name) => `var ${name} = vec4f(0);`))}
  ${lines(allLoads(plan).map(({ name }) => `var next${name}: vec4f;`))}
  ${cursors(plan)}
  ${fetch(plan, "kStart")}
  ${put(plan)}
  workgroupBarrier();
  for (var k = kStart; k < kLimit; k += ${depth}u) {
    let hasNext = k + ${depth}u < kLimit;
    if (hasNext) {
      ${fetch(plan, `k + ${depth}u`)}
    }
    ${multiply(plan)}
    workgroupBarrier();
    if (hasNext) {
      ${put(plan)}
    }
    workgroupBarrier();
  }
  ${store(plan)}
}`;
  return {
    kernel: gemmKernel(
      `tiled_${rows}x${columns}x${depth}`,
      form,
      { a: element, b: element, c: element },
      code,
      {
        workgroupStorageBytes: 16 * (a.lines * a.perLine + b.lines * b.perLine),
        invocationsPerWorkgroup: threads,
      },
    ),
    tileRows: rows,
    tileColumns: columns,
  };
}
