import { type GemmForm, type GemmKernel, gemmKernel, lines, range } from "./gemm_interface.ts";

/** Shape of a tile in workgroup memory and of the block that each invocation computes of it. */
export interface TileShape {
  /** Rows and columns of C that a workgroup computes. */
  readonly rows: number;
  readonly columns: number;
  /** Length of the inner index that is staged at a time; a multiple of four. */
  readonly depth: number;
  /** Rows and columns of C that an invocation computes; the columns are a multiple of four, the rows too. */
  readonly rowsEach: number;
  readonly columnsEach: number;
}

/** How one operand is staged: as vec4s along its contiguous axis, whichever that is. */
interface Staging {
  /** True when the contiguous axis is the inner index. */
  readonly alongInner: boolean;
  /** vec4s between two lines of the staged tile, padded against bank conflicts. */
  readonly pitch: number;
  /** vec4s in a line. */
  readonly perLine: number;
  /** vec4s of the whole staged tile, padding included. */
  readonly size: number;
  /** vec4s that each invocation loads. */
  readonly loads: number;
}

function staging(alongInner: boolean, extent: number, depth: number, threads: number): Staging {
  const perLine = (alongInner ? depth : extent) / 4;
  const lineCount = alongInner ? extent : depth;
  return {
    alongInner,
    perLine,
    pitch: perLine + 1,
    size: lineCount * (perLine + 1),
    loads: Math.ceil((lineCount * perLine) / threads),
  };
}

/**
 * Matrix product for GPUs: tiles of A and B are staged in workgroup memory, each invocation accumulates a block of C in
 * named vec4s (an indexed array would spill), and the next tile travels into registers while this one is multiplied.
 */
export function gemmTiled(form: GemmForm, shape: TileShape): GemmKernel {
  const { rows, columns, depth, rowsEach, columnsEach } = shape;
  const threadsX = columns / columnsEach;
  const threadsY = rows / rowsEach;
  const threads = threadsX * threadsY;
  const stageA = staging(!form.transposeA, rows, depth, threads);
  const stageB = staging(form.transposeB, columns, depth, threads);
  const groups = range(columnsEach / 4);
  const element = form.vec4 ? "vec4f" : "f32";

  // Where row r and column c of an invocation lie in the tile. Neighbours read neighbouring vec4s of a line, or neighbouring
  // lines, so that no two of them meet in a memory bank.
  const tileRow = stageA.alongInner ? `ty + r * ${threadsY}u` : `4u * (ty + r / 4u * ${threadsY}u) + r % 4u`;
  const tileColumn = stageB.alongInner
    ? `tx + inBlock * ${threadsX}u`
    : `4u * (tx + inBlock / 4u * ${threadsX}u) + inBlock % 4u`;

  const loop = (inner: number): string => {
    const reads: string[] = [];
    const a: string[] = [];
    if (!stageA.alongInner) {
      for (const g of range(rowsEach / 4)) {
        reads.push(`let a_${g} = stagedA[${inner * stageA.pitch}u + ty + ${g * threadsY}u];`);
      }
    }
    for (const r of range(rowsEach)) {
      a.push(stageA.alongInner ? `a${r}[${inner % 4}]` : `a_${Math.floor(r / 4)}[${r % 4}]`);
    }
    for (const g of groups) {
      reads.push(
        stageB.alongInner
          ? `let b_${g} = vec4f(${range(4).map((c) => `b${4 * g + c}[${inner % 4}]`).join(", ")});`
          : `let b_${g} = stagedB[${inner * stageB.pitch}u + tx + ${g * threadsX}u];`,
      );
    }
    const sums = range(rowsEach).flatMap((r) =>
      groups.map((g) => `acc${r}_${g} = fma(vec4f(${a[r]}), b_${g}, acc${r}_${g});`)
    );
    return `{ ${lines([...reads, ...sums])} }`;
  };

  const multiply = range(depth / 4).map((quad) => {
    const reads = [
      ...stageA.alongInner
        ? range(rowsEach).map((r) =>
          `let a${r} = stagedA[(ty + ${r * threadsY}u) * ${stageA.pitch}u + ${quad}u];`
        )
        : [],
      ...stageB.alongInner
        ? range(columnsEach).map((c) =>
          `let b${c} = stagedB[(tx + ${c * threadsX}u) * ${stageB.pitch}u + ${quad}u];`
        )
        : [],
    ];
    return `{ ${lines([...reads, ...range(4).map((i) => loop(4 * quad + i))])} }`;
  });

  const fetch = (operand: "A" | "B", stage: Staging) =>
    lines(
      range(stage.loads).map((load) =>
        `next${operand}${load} = load${operand}(thread + ${load * threads}u, k0);`
      ),
    );
  const put = (operand: "A" | "B", stage: Staging, extent: number) => {
    const count = (stage.alongInner ? extent : depth) * stage.perLine;
    return lines(
      range(stage.loads).map((load) => {
        const index = `(thread + ${load * threads}u)`;
        const write =
          `staged${operand}[${index} / ${stage.perLine}u * ${stage.pitch}u + ${index} % ${stage.perLine}u] = next${operand}${load};`;
        return (load + 1) * threads > count ? `if (${index} < ${count}u) { ${write} }` : write;
      }),
    );
  };

  const loader = (
    operand: "A" | "B",
    stage: Staging,
    extentName: "m" | "n",
    startName: "rowStart" | "columnStart",
  ) => {
    const name = operand.toLowerCase();
    const lineStart = stage.alongInner ? startName : "k0";
    const lineEnd = stage.alongInner ? `params.${extentName}` : "kEnd";
    const alongStart = stage.alongInner ? "k0" : startName;
    const alongEnd = stage.alongInner ? "kEnd" : `params.${extentName}`;
    const weighted = form.weighted && operand === "B" ? " * weights[params.baseWeights + line]" : "";
    const read = form.vec4
      ? `if (line >= lineEnd || along >= alongEnd) { return vec4f(0); }
  return ${name}[(params.base${operand} + line * params.stride${operand} + along) / 4u]${weighted};`
      : `if (line >= lineEnd) { return vec4f(0); }
  let start = params.base${operand} + line * params.stride${operand} + along;
  var values = vec4f(0);
  ${lines(range(4).map((i) => `if (along + ${i}u < alongEnd) { values[${i}] = ${name}[start + ${i}u]; }`))}
  return values${weighted};`;
    return `
fn load${operand}(index: u32, k0: u32) -> vec4f {
  let line = ${lineStart} + index / ${stage.perLine}u;
  let along = ${alongStart} + 4u * (index % ${stage.perLine}u);
  let lineEnd = ${lineEnd};
  let alongEnd = ${alongEnd};
  ${read}
}`;
  };

  // A vec4 of C can be written whole when an invocation's columns lie next to each other.
  const wholeVectors = form.vec4 && !stageB.alongInner;
  const storeGroup = wholeVectors
    ? `let column = columnStart + 4u * (tx + g * ${threadsX}u);
      if (column < params.n) { store((start + column) / 4u, sum); }`
    : `for (var i = 0u; i < 4u; i++) {
        let inBlock = 4u * g + i;
        let column = columnStart + ${tileColumn};
        if (column < params.n) { store(start + column, sum[i]); }
      }`;
  const accumulators = range(rowsEach).flatMap((r) => groups.map((g) => `acc${r}_${g}`));
  const elementC = wholeVectors ? "vec4f" : "f32";

  const code = /* wgsl */ `
var<workgroup> stagedA: array<vec4f, ${stageA.size}>;
var<workgroup> stagedB: array<vec4f, ${stageB.size}>;
var<private> rowStart: u32;
var<private> columnStart: u32;
var<private> kEnd: u32;
${loader("A", stageA, "m", "rowStart")}
${loader("B", stageB, "n", "columnStart")}

fn store(index: u32, sum: ${elementC}) {
  if (params.beta == 0.0) { c[index] = params.alpha * sum; }
  else { c[index] = params.alpha * sum + params.beta * c[index]; }
}

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  rowStart = group.y * ${rows}u;
  columnStart = group.x * ${columns}u;
  if (params.lowerOnly != 0u && group.x * ${columns}u >= group.y * ${rows}u + ${rows}u) { return; }
  let kStart = group.z * params.kPerSlice;
  let kLimit = min(kStart + params.kPerSlice, params.k);
  kEnd = kLimit;
  let sliceBase = params.baseC + group.z * params.sliceStride;
  let tx = thread % ${threadsX}u;
  let ty = thread / ${threadsX}u;
  ${lines(accumulators.map((name) => `var ${name} = vec4f(0);`))}
  ${
    lines(range(stageA.loads).map((load) => `var nextA${load} = loadA(thread + ${load * threads}u, kStart);`))
  }
  ${
    lines(range(stageB.loads).map((load) => `var nextB${load} = loadB(thread + ${load * threads}u, kStart);`))
  }
  for (var k = kStart; k < kLimit; k += ${depth}u) {
    workgroupBarrier();
    ${put("A", stageA, rows)}
    ${put("B", stageB, columns)}
    workgroupBarrier();
    if (k + ${depth}u < kLimit) {
      let k0 = k + ${depth}u;
      ${fetch("A", stageA)}
      ${fetch("B", stageB)}
    }
    ${lines(multiply)}
  }
  var sums = array<vec4f, ${accumulators.length}>(${accumulators.join(", ")});
  for (var r = 0u; r < ${rowsEach}u; r++) {
    let row = rowStart + ${tileRow};
    if (row >= params.m) { continue; }
    let start = sliceBase + row * params.strideC;
    for (var g = 0u; g < ${groups.length}u; g++) {
      let sum = sums[r * ${groups.length}u + g];
      ${storeGroup}
    }
  }
}`;
  return {
    kernel: gemmKernel(
      `tiled_${rows}x${columns}x${depth}`,
      form,
      { a: element, b: element, c: elementC },
      code,
      {
        workgroupStorageBytes: 16 * (stageA.size + stageB.size),
        invocationsPerWorkgroup: threads,
      },
    ),
    tileRows: rows,
    tileColumns: columns,
  };
}
