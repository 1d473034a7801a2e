import type { Kernel } from "../gpu/kernel.ts";
import { lines, range } from "./gemm_interface.ts";
import { PACKED_K, PACKED_ROWS, SCALE_OF_LARGEST } from "./pack_halves.ts";

/** Rows, columns and inner length of what one matrix instruction multiplies. */
const UNIT = 16;
/** Invocations of a subgroup that these kernels are made for: NVIDIA's. */
export const SUBGROUP = 32;
/** f16 values in a vec4u, which is how they travel. */
const HALVES = 8;

/** Numbers in f16 that an element of an operand is the sum of. */
export type Parts = 1 | 2;

/** Shape of the work of one workgroup. */
export interface MatrixUnitShape {
  /** Rows and columns of C; multiples of {@linkcode PACKED_ROWS}. */
  readonly rows: number;
  readonly columns: number;
  /** Inner length that is staged at a time, in units of {@linkcode PACKED_K}. */
  readonly chunks: 1 | 2 | 4;
  /** Subgroups side by side along rows and columns of C. */
  readonly subgroupRows: number;
  readonly subgroupColumns: number;
  /** Parts of each operand. 1: plain f16. 2: high and low, of whose products with the other operand's all but low times low count. */
  readonly partsA: Parts;
  readonly partsB: Parts;
  /** Rows of C are read and written as vec4s: its columns, stride and base are multiples of four. */
  readonly vec4: boolean;
}

/** A kernel on matrix units and the block of C that one of its workgroups computes. */
export interface MatrixUnitKernel {
  readonly kernel: Kernel;
  readonly shape: MatrixUnitShape;
}

/** Parameters of {@linkcode gemmMatrixUnits}, in order. */
export const MATRIX_UNIT_PARAMS: Kernel["params"] = [
  ["m", "u32"],
  ["n", "u32"],
  ["tileRows", "u32"], // tiles of C along its rows
  ["tileColumns", "u32"],
  ["chunks", "u32"], // packed chunks of the inner index
  ["chunksPerSlice", "u32"], // of them for each z of the dispatch
  ["sliceStride", "u32"], // elements of C from one slice to the next
  ["run", "u32"], // chunks that are summed in the matrix units before the sum is added to C
  ["strideC", "u32"],
  ["baseC", "u32"],
  ["lowerOnly", "u32"],
  ["alpha", "f32"],
  ["beta", "f32"],
];

/** A shape with all that follows from it. */
interface Plan {
  readonly shape: MatrixUnitShape;
  readonly threads: number;
  /** Matrices that a subgroup computes along the rows and the columns of C. */
  readonly unitsM: number;
  readonly unitsN: number;
  /** vec4us of a packed tile, and of one of its rows. */
  readonly tileVectors: number;
  readonly rowVectors: number;
  /** vec4us from one staged row to the next: one more than there are, so that neighbouring rows lie in different memory banks. */
  readonly pitch: number;
}

function planOf(shape: MatrixUnitShape): Plan {
  const rowVectors = PACKED_K / HALVES;
  return {
    shape,
    threads: SUBGROUP * shape.subgroupRows * shape.subgroupColumns,
    unitsM: shape.rows / shape.subgroupRows / UNIT,
    unitsN: shape.columns / shape.subgroupColumns / UNIT,
    tileVectors: PACKED_ROWS * rowVectors,
    rowVectors,
    pitch: shape.chunks * rowVectors + 1,
  };
}

/** An operand, and the rows of C or columns that a workgroup takes of it. */
interface Side {
  readonly operand: "A" | "B";
  readonly extent: number;
  readonly parts: Parts;
}

function sidesOf({ rows, columns, partsA, partsB }: Omit<MatrixUnitShape, "vec4">): readonly [Side, Side] {
  return [{ operand: "A", extent: rows, parts: partsA }, { operand: "B", extent: columns, parts: partsB }];
}

/** One of the vec4us that an invocation carries from an operand's packed tiles to workgroup memory. */
interface Carried {
  readonly side: Side;
  /** Place of the first invocation's among those of all packed tiles of the operand. */
  readonly start: number;
  readonly name: string;
}

function carried({ shape, threads, tileVectors }: Plan): Carried[] {
  return sidesOf(shape).flatMap((side) => {
    const count = side.parts * shape.chunks * (side.extent / PACKED_ROWS) * tileVectors / threads;
    return range(count).map((load) => ({ side, start: load * threads, name: `next${side.operand}${load}` }));
  });
}

/** Fetches an invocation's share of the next tiles into registers: `var` the first time, assignments later. */
function fetch(plan: Plan, declare: boolean, chunk: string): string {
  const { shape: { chunks }, tileVectors } = plan;
  return lines(
    carried(plan).map(({ side: { operand, parts }, start, name }) => {
      const flat = `(thread + ${start}u)`;
      const block = `${flat} / ${tileVectors}u`; // of [tile][chunk][part]
      const index = `start${operand} + ${block} / ${chunks * parts}u * params.chunks * ${
        parts * tileVectors
      }u + (${chunk}) * ${parts * tileVectors}u + ${block} % ${
        chunks * parts
      }u * ${tileVectors}u + ${flat} % ${tileVectors}u`;
      return `${declare ? "var " : ""}${name} = ${operand.toLowerCase()}[${index}];`;
    }),
  );
}

/** Puts the fetched share into workgroup memory. */
function put(plan: Plan): string {
  const { shape, tileVectors, rowVectors, pitch } = plan;
  return lines(
    carried(plan).map(({ side: { operand, extent, parts }, start, name }) => {
      const flat = `(thread + ${start}u)`;
      const block = `${flat} / ${tileVectors}u`;
      const row = `${flat} % ${PACKED_ROWS}u`;
      const unit = `${block} % ${parts}u * ${extent / UNIT}u + ${block} / ${parts * shape.chunks}u * ${
        PACKED_ROWS / UNIT
      }u + ${row} / ${UNIT}u`;
      const place =
        `${row} % ${UNIT}u * ${pitch}u + ${block} / ${parts}u % ${shape.chunks}u * ${rowVectors}u + ${flat} % ${tileVectors}u / ${PACKED_ROWS}u`;
      return `staged${operand}[${unit}][${place}] = ${name};`;
    }),
  );
}

/**
 * Multiplies the staged tiles. The offset of each load is a constant and the pointer chooses the matrix, because Tint guards
 * every load whose offset it does not know, at several times the cost of the load.
 */
function multiply({ shape, unitsM, unitsN, pitch }: Plan): string {
  const load = (side: "Left" | "Right", part: number, unit: number, step: number) => {
    const [staged, extent, first, order] = side === "Left"
      ? ["stagedA", shape.rows, `subgroupRow * ${unitsM}u`, "row_major"] as const
      : ["stagedB", shape.columns, `subgroupColumn * ${unitsN}u`, "col_major"] as const;
    const pointer = `&${staged}[${first} + ${part * extent / UNIT + unit}u]`;
    return `subgroupMatrixLoad<${side}, ${order}>(${pointer}, ${step * UNIT / HALVES}u, ${pitch}u)`;
  };
  const lefts = (name: string, part: number, step: number) =>
    range(unitsM).map((i) => `let ${name}${i} = ${load("Left", part, i, step)};`);
  const rights = (name: string, part: number, step: number) =>
    range(unitsN).map((j) => `let ${name}${j} = ${load("Right", part, j, step)};`);
  const products = (a: string, b: string) =>
    range(unitsM).flatMap((i) =>
      range(unitsN).map((j) =>
        `c${i}_${j} = subgroupMatrixMultiplyAccumulate(${a}${i}, ${b}${j}, c${i}_${j});`
      )
    );
  const steps = range(shape.chunks * PACKED_K / UNIT).map((step) => [
    ...lefts("high", 0, step),
    ...rights("top", 0, step),
    ...products("high", "top"),
    ...shape.partsB === 1 ? [] : [...rights("rest", 1, step), ...products("high", "rest")],
    ...shape.partsA === 1 ? [] : [...lefts("low", 1, step), ...products("low", "top")],
  ]);
  return lines(steps.map((step) => `{ ${lines(step)} }`));
}

/**
 * Adds the sums to C. Matrices pass one by one through workgroup memory, where their elements can be got at; what C held and the
 * scales are fetched a row of matrices ahead, so that they are there when they are needed.
 */
function flush({ shape, unitsM, unitsN }: Plan): string {
  const [element, width] = shape.vec4 ? ["vec4f", 4] : ["f32", 1];
  const perRow = UNIT / width; // elements of a matrix's row
  const elements = range(UNIT * UNIT / SUBGROUP / width); // that each invocation handles; all in one column
  const rowsApart = SUBGROUP / perRow;
  const fetchRow = (i: number) =>
    elements.flatMap((e) => [
      `let row${i}_${e} = rowC + ${i * UNIT + e * rowsApart}u + lane / ${perRow}u;`,
      `let scale${i}_${e} = ${element}(scaleOf(largestA[min(row${i}_${e}, params.m - 1u)]));`,
      ...range(unitsN).map((j) =>
        `var old${i}_${j}_${e} = ${element}(0); if (reads) { old${i}_${j}_${e} = previous(row${i}_${e}, column${j}); }`
      ),
    ]);
  const writeMatrix = (i: number, j: number) => [
    "workgroupBarrier();",
    `subgroupMatrixStore<row_major>(&epilogue[subgroup], 0u, c${i}_${j}, ${perRow}u);`,
    "workgroupBarrier();",
    ...elements.map((e) =>
      `store(row${i}_${e}, column${j}, epilogue[subgroup][lane + ${
        e * SUBGROUP
      }u], scale${i}_${e}, columnScale${j}, old${i}_${j}_${e} * factor);`
    ),
  ];
  return lines([
    ...range(unitsN).flatMap((j) => [
      `let column${j} = columnC + ${j * UNIT}u + lane % ${perRow}u * ${width}u;`,
      `let columnScale${j} = scalesOfColumns(column${j});`,
    ]),
    ...fetchRow(0),
    ...range(unitsM).flatMap((i) => [
      ...i + 1 < unitsM ? fetchRow(i + 1) : [],
      ...range(unitsN).flatMap((j) => writeMatrix(i, j)),
    ]),
  ]);
}

function declarations({ shape, threads, pitch }: Plan): string {
  const [element, width] = shape.vec4 ? ["vec4f", 4] : ["f32", 1];
  const scalesB = range(width).map((i) => `scaleOf(largestB[min(column + ${i}u, params.n - 1u)])`).join(", ");
  return /* wgsl */ `
alias Left = subgroup_matrix_left<f16, ${UNIT}, ${UNIT}>;
alias Right = subgroup_matrix_right<f16, ${UNIT}, ${UNIT}>;
alias Sum = subgroup_matrix_result<f32, ${UNIT}, ${UNIT}>;

${
    lines(
      sidesOf(shape).map(({ operand, extent, parts }) =>
        `var<workgroup> staged${operand}: array<array<vec4u, ${UNIT * pitch}>, ${parts * extent / UNIT}>;`
      ),
    )
  }
var<workgroup> epilogue: array<array<${element}, ${UNIT * UNIT / width}>, ${threads / SUBGROUP}>;

${SCALE_OF_LARGEST}

/** Where C starts for this workgroup's slice. */
var<private> startC: u32;

fn previous(row: u32, column: u32) -> ${element} {
  return c[(startC + min(row, params.m - 1u) * params.strideC + min(column, params.n - ${width}u)) / ${width}u];
}

fn scalesOfColumns(column: u32) -> ${element} { return ${element}(${scalesB}); }

fn store(row: u32, column: u32, sum: ${element}, left: ${element}, right: ${element}, old: ${element}) {
  if (row >= params.m || column >= params.n) { return; }
  // The smaller scale first: the product of both may be out of range where the result is not.
  c[(startC + row * params.strideC + column) / ${width}u] = old + params.alpha * (sum * min(left, right) * max(left, right));
}

/** Tile of C of a workgroup, in bands of eight tile rows, whose operands stay in the cache. */
fn tileOf(group: u32) -> vec2u {
  let band = group / (8u * params.tileColumns);
  let height = min(8u, params.tileRows - 8u * band);
  let within = group - band * 8u * params.tileColumns;
  return vec2u(8u * band + within % height, within / height);
}`;
}

/**
 * Matrix product on matrix units (subgroup matrices, f16 inputs and f32 sums) of operands that `packHalves` brought into tiles.
 * C[i, j] = alpha · scale(largestA[i]) · scale(largestB[j]) · Σ_k a[i, k] b[j, k] + beta · C[i, j]. With two parts a = aₕ + aₗ, the sum takes
 * aₕbₕ + aₕbₗ + aₗbₕ: about 22 bits of each factor. An operand that 11 bits hold needs but one. Matrix units round sums towards zero, so after `run` chunks the sums are added
 * to C with proper rounding and start anew.
 *
 * The next tiles travel into registers while those in workgroup memory are multiplied.
 */
export function gemmMatrixUnits(shape: MatrixUnitShape): MatrixUnitKernel {
  const plan = planOf(shape);
  const { threads, unitsM, unitsN, tileVectors, pitch } = plan;
  const { rows, columns, chunks, subgroupColumns } = shape;
  const accumulators = range(unitsM).flatMap((i) => range(unitsN).map((j) => `c${i}_${j}`));
  const [panelA, panelB] = sidesOf(shape).map(({ extent, parts }) =>
    extent / PACKED_ROWS * parts * tileVectors
  );
  const code = /* wgsl */ `${declarations(plan)}

@compute @workgroup_size(${threads})
fn main(
  @builtin(workgroup_id) groupId: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let group = groupId.x + groupId.y * groups.x;
  if (group >= params.tileRows * params.tileColumns) { return; }
  let tile = tileOf(group);
  if (params.lowerOnly != 0u && tile.y * ${columns}u >= (tile.x + 1u) * ${rows}u) { return; }
  let startA = tile.x * params.chunks * ${panelA}u;
  let startB = tile.y * params.chunks * ${panelB}u;
  let subgroup = thread / ${SUBGROUP}u;
  let lane = thread % ${SUBGROUP}u;
  let subgroupRow = subgroup / ${subgroupColumns}u;
  let subgroupColumn = subgroup % ${subgroupColumns}u;
  let rowC = tile.x * ${rows}u + subgroupRow * ${unitsM * UNIT}u;
  let columnC = tile.y * ${columns}u + subgroupColumn * ${unitsN * UNIT}u;
  let end = min((groupId.z + 1u) * params.chunksPerSlice, params.chunks);
  var chunk = groupId.z * params.chunksPerSlice;
  if (chunk >= end) { return; }
  startC = params.baseC + groupId.z * params.sliceStride;
  ${fetch(plan, true, "chunk")}
  var factor = params.beta;
  while (chunk < end) {
    let runEnd = min(chunk + params.run, end);
    ${lines(accumulators.map((name) => `var ${name} = Sum();`))}
    for (; chunk < runEnd; chunk += ${chunks}u) {
      workgroupBarrier();
      ${put(plan)}
      workgroupBarrier();
      if (chunk + ${chunks}u < end) { ${fetch(plan, false, `chunk + ${chunks}u`)} }
      ${multiply(plan)}
    }
    let reads = factor != 0.0;
    ${flush(plan)}
    factor = 1.0;
  }
}`;
  const stagedVectors = sidesOf(shape).reduce((sum, { extent, parts }) => sum + parts * extent * pitch, 0);
  return {
    shape,
    kernel: {
      name: `gemm_matrix_units_${nameOf(shape)}`,
      buffers: [
        { name: "a", element: "vec4u", access: "read" },
        { name: "b", element: "vec4u", access: "read" },
        { name: "largestA", element: "u32", access: "read" },
        { name: "largestB", element: "u32", access: "read" },
        { name: "c", element: shape.vec4 ? "vec4f" : "f32", access: "read_write" },
      ],
      params: MATRIX_UNIT_PARAMS,
      code,
      enables: [
        "enable f16;",
        "enable subgroups;",
        "enable chromium_experimental_subgroup_matrix;",
        "diagnostic(off, chromium.subgroup_matrix_uniformity);",
      ],
      requires: {
        features: ["shader-f16", "subgroups", "chromium-experimental-subgroup-matrix"],
        workgroupStorageBytes: 16 * stagedVectors + 4 * UNIT * UNIT * (threads / SUBGROUP),
        invocationsPerWorkgroup: threads,
        subgroupSize: SUBGROUP,
      },
    },
  };
}

/** `split_128x128x16_2x4_vec4` and so on. */
function nameOf(shape: MatrixUnitShape): string {
  const { rows, columns, chunks, subgroupRows, subgroupColumns, partsA, partsB, vec4 } = shape;
  const operands = partsA === 1 ? "f16" : partsB === 1 ? "split_a" : "split";
  return `${operands}_${rows}x${columns}x${chunks * PACKED_K}_${subgroupRows}x${subgroupColumns}${
    vec4 ? "_vec4" : ""
  }`;
}
