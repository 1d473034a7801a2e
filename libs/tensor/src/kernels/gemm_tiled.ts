import { type GemmForm, type GemmKernel, gemmKernel, lines, places, range } from "./gemm_interface.ts";

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

/** How one operand travels to workgroup memory, where a line holds one step of the inner index: its rows of C, or columns. */
interface Staging {
  readonly operand: "A" | "B";
  /** True when the inner index runs along memory: blocks of 4 × 4 are then transposed on their way. */
  readonly alongInner: boolean;
  /** vec4s in a line. */
  readonly perLine: number;
  /** vec4s that each invocation loads. */
  readonly loads: number;
  /** What the number of a step's quad is multiplied by to give the swizzle of its lines; 0 for none. */
  readonly swizzle: number;
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

/** vec4s side by side that lie in different memory banks. */
const BANKS = 8;

function planOf(form: GemmForm, shape: TileShape): Plan {
  const threadsX = shape.columns / shape.columnsEach;
  const threadsY = shape.rows / shape.rowsEach;
  const threads = threadsX * threadsY;
  const quads = shape.depth / 4;
  const stage = (operand: "A" | "B", alongInner: boolean, extent: number): Staging => {
    const perLine = extent / 4;
    const each = Math.ceil(perLine * (alongInner ? quads : shape.depth) / threads);
    const swizzle = alongInner && perLine % BANKS === 0 ? Math.max(1, BANKS / quads) : 0;
    return { operand, alongInner, perLine, loads: alongInner ? 4 * each : each, swizzle };
  };
  const a = stage("A", !form.transposeA, shape.rows);
  const b = stage("B", form.transposeB, shape.columns);
  return { form, shape, threadsX, threadsY, threads, quads, a, b };
}

/** One vec4 that every invocation carries to workgroup memory. */
interface Load {
  readonly staging: Staging;
  readonly name: string;
  /** Where it starts, from the start of the tile: along the inner index, and along the rows or columns of C. */
  readonly inner: string;
  readonly outer: string;
}

function loadsOf({ threads, quads }: Plan, staging: Staging): Load[] {
  const { operand, alongInner, perLine, loads } = staging;
  return range(loads).map((load) => {
    const flat = `(thread + ${(alongInner ? Math.floor(load / 4) : load) * threads}u)`;
    const name = `${operand}${load}`;
    return alongInner
      ? {
        staging,
        name,
        inner: `4u * (${flat} % ${quads}u)`,
        outer: `4u * (${flat} / ${quads}u) + ${load % 4}u`,
      }
      : { staging, name, inner: `${flat} / ${perLine}u`, outer: `4u * (${flat} % ${perLine}u)` };
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

/** Puts the fetched share into one of the two tiles in workgroup memory. */
function put(
  { threads, shape, quads }: Plan,
  { operand, alongInner, perLine, loads, swizzle }: Staging,
  turn: string,
): string {
  const each = alongInner ? 4 : 1;
  return lines(
    range(loads / each).map((i) => {
      const flat = `(thread + ${i * threads}u)`;
      const staged = `staged${operand}[${turn}]`;
      const line = `${flat} / ${perLine}u`;
      const [quad, column] = [`${flat} % ${quads}u`, `${flat} / ${quads}u`];
      const write = alongInner
        ? lines(
          range(4).map((step) => {
            const values = range(4).map((row) => `next${operand}${4 * i + row}[${step}]`);
            const place = swizzle === 0 ? column : `(${column}) ^ (${swizzle}u * (${quad}))`;
            return `${staged}[4u * (${quad}) + ${step}u][${place}] = vec4f(${values.join(", ")});`;
          }),
        )
        : `${staged}[${line}][${flat} % ${perLine}u] = next${operand}${i};`;
      const count = perLine * (alongInner ? quads : shape.depth);
      return (i + 1) * threads > count ? `if (${flat} < ${count}u) { ${write} }` : write;
    }),
  );
}

/** Multiplies a staged tile, step by step: the outer product of a column of A and a row of B. */
function multiply({ shape, threadsX, threadsY, a, b }: Plan): string {
  const columnGroups = range(shape.columnsEach / 4);
  const place = ({ swizzle }: Staging, step: number, index: string) =>
    swizzle === 0 ? index : `(${index}) ^ ${swizzle * Math.floor(step / 4)}u`;
  const oneStep = (step: number) => [
    ...range(shape.rowsEach / 4).map((g) =>
      `let rows${g} = stagedA[turn][${step}][${place(a, step, `ty + ${g * threadsY}u`)}];`
    ),
    ...columnGroups.map((g) =>
      `let columns${g} = stagedB[turn][${step}][${place(b, step, `tx + ${g * threadsX}u`)}];`
    ),
    ...range(shape.rowsEach).flatMap((r) =>
      columnGroups.map((g) =>
        `sum${r}_${g} = fma(vec4f(rows${Math.floor(r / 4)}[${r % 4}]), columns${g}, sum${r}_${g});`
      )
    ),
  ];
  return lines(range(shape.depth).map((step) => `{ ${lines(oneStep(step))} }`));
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
 * vec4s (an indexed array would spill). While one tile is multiplied, the next travels into registers, and from there into the other of two
 * buffers, so that one barrier a tile is enough.
 */
export function gemmTiled(form: GemmForm, shape: TileShape): GemmKernel {
  const plan = planOf(form, shape);
  const { a, b, threads, threadsX, threadsY } = plan;
  const [blockX, blockY] = [Math.min(8, threadsX), Math.min(4, threadsY)];
  const { rows, columns, depth } = shape;
  const element = form.vec4 ? "vec4f" : "f32";
  const code = /* wgsl */ `
var<workgroup> stagedA: array<array<array<vec4f, ${a.perLine}>, ${depth}>, 2>;
var<workgroup> stagedB: array<array<array<vec4f, ${b.perLine}>, ${depth}>, 2>;
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
  ${put(plan, a, "0u")}
  ${put(plan, b, "0u")}
  workgroupBarrier();
  var turn = 0u;
  for (var k = kStart; k < kLimit; k += ${depth}u) {
    let hasNext = k + ${depth}u < kLimit;
    if (hasNext) {
      ${fetch(plan, `k + ${depth}u`)}
    }
    ${multiply(plan)}
    if (hasNext) {
      ${put(plan, a, "1u - turn")}
      ${put(plan, b, "1u - turn")}
    }
    workgroupBarrier();
    turn = 1u - turn;
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
        workgroupStorageBytes: 2 * 4 * depth * (rows + columns),
        invocationsPerWorkgroup: threads,
      },
    ),
    tileRows: rows,
    tileColumns: columns,
  };
}
