import {
  concatRows,
  defineOperation,
  gemm,
  type GpuDevice,
  type Kernel,
  reshape,
  sliceColumns,
  type Tensor,
} from "@lora-loom/tensor";
import { multiple, weightedSquares } from "../algebra.ts";

/** Rows and outputs of a workgroup's tile, and of one invocation's part of it. */
const TILE = 64;
const EACH = 4;
const INVOCATIONS = (TILE / EACH) ** 2;
/** Columns of the factors that are staged together. */
const DEPTH = 16;
/** Outputs that a workgroup goes through, tile by tile. */
const STRIP = 1024;

const PRODUCTS = ["target", "solution", "stacked"] as const;
type ProductName = typeof PRODUCTS[number];

/** The inner products of the solution and of the stacked deltas are columns of the same matrix. */
function innerBuffer(name: ProductName): string {
  return name === "target" ? "expert_inner" : "merged_inner";
}

function perRow(line: (row: number) => string): string {
  return Array.from({ length: EACH }, (_, row) => line(row)).join("\n");
}

function staged(value: string, first: string): string {
  return `vec4f(${Array.from({ length: EACH }, (_, i) => `${value}(${first} + ${i}u, k + ty)`).join(", ")})`;
}

function readers(name: ProductName): string {
  const inner = innerBuffer(name);
  return /* wgsl */ `
fn ${name}_inner(row: u32, k: u32) -> f32 {
  if (row >= params.m || k >= params.${name}_rank) { return 0.0; }
  return ${inner}[row * params.${inner}_stride + params.${name}_first + k];
}
fn ${name}_output(output: u32, k: u32) -> f32 {
  if (output >= params.n || k >= params.${name}_rank) { return 0.0; }
  return ${name}_b[output * params.${name}_rank + k];
}`;
}

/** Puts a tile of inner · bᵀ into one vec4 for each of an invocation's rows. */
function tileOf(name: ProductName): string {
  return /* wgsl */ `
    ${perRow((row) => `var ${name}${row} = vec4f(0.0);`)}
    for (var k = 0u; k < params.${name}_rank; k += ${DEPTH}u) {
      workgroupBarrier();
      // Every invocation stages one vec4 of each factor: the same ${EACH} rows or outputs of one column.
      staged_inner[ty][tx] = ${staged(`${name}_inner`, `first_row + ${EACH}u * tx`)};
      staged_outputs[ty][tx] = ${staged(`${name}_output`, `first + ${EACH}u * tx`)};
      workgroupBarrier();
      for (var i = 0u; i < min(${DEPTH}u, params.${name}_rank - k); i++) {
        let x = staged_inner[i][ty];
        let c = staged_outputs[i][tx];
        ${perRow((row) => `${name}${row} = fma(vec4f(x[${row}]), c, ${name}${row});`)}
      }
    }`;
}

/** WGSL: adds up what every invocation of a workgroup put into an array, in its first element. */
function reduceLanes(sums: string): string {
  return /* wgsl */ `
  workgroupBarrier();
  for (var half = ${INVOCATIONS / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { ${sums}[lane] += ${sums}[lane + half]; }
    workgroupBarrier();
  }`;
}

const ERROR_SQUARES: Kernel = {
  name: "iteris_error_squares",
  buffers: [
    ...["expert_inner", "merged_inner", ...PRODUCTS.map((name) => `${name}_b`), "weights"].map((name) => ({
      name,
      element: "f32",
      access: "read" as const,
    })),
    { name: "sums", element: "f32", access: "read_write" },
  ],
  params: [
    ["m", "u32"],
    ["n", "u32"],
    ["expert_inner_stride", "u32"],
    ["merged_inner_stride", "u32"],
    ...PRODUCTS.flatMap((name) => [[`${name}_first`, "u32"], [`${name}_rank`, "u32"]] as const),
    ["mean_factor", "f32"],
  ],
  code: /* wgsl */ `
var<workgroup> staged_inner: array<array<vec4f, ${TILE / EACH}>, ${DEPTH}>;
var<workgroup> staged_outputs: array<array<vec4f, ${TILE / EACH}>, ${DEPTH}>;
var<workgroup> squares: array<vec4f, ${INVOCATIONS}>;
${PRODUCTS.map(readers).join("\n")}

@compute @workgroup_size(${INVOCATIONS})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let tx = lane % ${TILE / EACH}u;
  let ty = lane / ${TILE / EACH}u;
  let first_row = group.x * ${TILE}u;
  let strip = group.y * ${STRIP}u;
  ${perRow((row) => `var total${row} = vec4f(0.0);`)}
  for (var first = strip; first < min(strip + ${STRIP}u, params.n); first += ${TILE}u) {
    ${PRODUCTS.map(tileOf).join("\n")}
    ${
    perRow((row) => `
    let by_solution${row} = target${row} - solution${row};
    let by_sum${row} = target${row} - stacked${row};
    let by_mean${row} = target${row} - params.mean_factor * stacked${row};
    total${row} += vec4f(dot(target${row}, target${row}), dot(by_solution${row}, by_solution${row}),
      dot(by_sum${row}, by_sum${row}), dot(by_mean${row}, by_mean${row}));`)
  }
  }
  var weighted = vec4f(0.0);
  ${
    perRow((row) => `
  let row${row} = first_row + ${EACH}u * ty + ${row}u;
  if (row${row} < params.m) { weighted += weights[row${row}] * weights[row${row}] * total${row}; }`)
  }
  squares[lane] = weighted;
  ${reduceLanes("squares")}
  if (lane < 4u) { sums[4u * (group.y * groups.x + group.x) + lane] = squares[0][lane]; }
}`,
};

const SUM: Kernel = {
  name: "iteris_sum_of_figures",
  buffers: [
    { name: "parts", element: "f32", access: "read" },
    { name: "totals", element: "f32", access: "read_write" },
  ],
  params: [["count", "u32"]],
  code: /* wgsl */ `
var<workgroup> sums: array<f32, ${INVOCATIONS}>;
@compute @workgroup_size(${INVOCATIONS})
fn main(@builtin(workgroup_id) figure: vec3u, @builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var i = lane; i < params.count; i += ${INVOCATIONS}u) { sum += parts[4u * i + figure.x]; }
  sums[lane] = sum;
  ${reduceLanes("sums")}
  if (lane == 0u) { totals[figure.x] = sums[0]; }
}`,
};

/** Outputs of a batch by a narrow delta: inner · bᵀ, `[tokens, out]`, never stored. */
export interface NarrowOutputs {
  /** `[tokens, …]`: the products with one factor, as columns among those with others. */
  readonly inner: Tensor;
  /** The first column that counts. */
  readonly first: number;
  /** The other factor, `[out, r]`: r columns of `inner` count. */
  readonly b: Tensor;
}

/** What is compared on one batch. */
export interface ComparedOutputs {
  /** Y; absent: zero. */
  readonly target: NarrowOutputs | undefined;
  readonly solution: NarrowOutputs;
  /** Columns of the same matrix as the solution's. */
  readonly stacked: NarrowOutputs;
  /** What makes of the sum of the deltas their mean. */
  readonly meanFactor: number;
  /** D^½, `[tokens]`. */
  readonly rootWeights: Tensor;
}

const operation = defineOperation<[Tensor, ComparedOutputs], Tensor>({
  name: "iteris_error_squares",
  kernels: [ERROR_SQUARES, SUM],
  gpu(device, _, outputs) {
    // Drivers that run on the CPU gain nothing from workgroup memory.
    return device.info.class === "software" ? storedErrorSquares(outputs) : unstoredErrorSquares(outputs);
  },
  cpu: (_device, _, outputs) => storedErrorSquares(outputs),
});

/** ‖D^½ Y‖², and ‖D^½ (Y − Z)‖² for Z by the solution, by the sum and by the mean of the deltas: `[4]`. */
export function errorSquares(outputs: ComparedOutputs): Tensor {
  return operation(outputs.rootWeights, outputs);
}

/** What hardware runs. */
export function unstoredErrorSquares(
  { target, solution, stacked, meanFactor, rootWeights }: ComparedOutputs,
): Tensor {
  const device = rootWeights.device as GpuDevice;
  const [m, n] = [rootWeights.shape[0]!, solution.b.shape[0]!];
  const grid = [Math.ceil(m / TILE), Math.ceil(n / STRIP)] as const;
  const count = grid[0] * grid[1];
  const wanted = target ?? solution;
  const columns = (outputs: NarrowOutputs) => [outputs.first, outputs.b.shape[1]!];
  using sums = device.empty([count, 4]);
  device.dispatch(
    ERROR_SQUARES,
    [wanted.inner, solution.inner, wanted.b, solution.b, stacked.b, rootWeights, sums],
    [
      m,
      n,
      wanted.inner.shape[1]!,
      solution.inner.shape[1]!,
      ...target ? columns(target) : [0, 0],
      ...columns(solution),
      ...columns(stacked),
      meanFactor,
    ],
    grid,
  );
  const totals = device.empty([4]);
  device.dispatch(SUM, [sums, totals], [count], [4]);
  return totals;
}

function storedErrorSquares({ target, ...outputs }: ComparedOutputs): Tensor {
  const { solution, rootWeights } = outputs;
  const shape = [rootWeights.shape[0]!, solution.b.shape[0]!];
  using wanted = target ? less(target, 1) : rootWeights.device.zeros(shape);
  return errorSquaresOf(wanted, outputs);
}

/** The same for a target Y that has every output in memory, `[tokens, out]`. */
export function errorSquaresOf(
  target: Tensor,
  { solution, stacked, meanFactor, rootWeights }: Omit<ComparedOutputs, "target">,
): Tensor {
  const squares = [
    weightedSquares(target, rootWeights),
    ...([[solution, 1], [stacked, 1], [stacked, meanFactor]] as const).map(([outputs, factor]) => {
      using rest = less(outputs, -factor, target);
      return weightedSquares(rest, rootWeights);
    }),
  ];
  using rows = new DisposableStack();
  for (const square of squares) rows.use(square);
  using column = concatRows(squares.map((square) => rows.use(reshape(square, [1, 1]))));
  return reshape(column, [4]);
}

/** factor · inner · bᵀ, with `target` added where given. */
function less({ inner, first, b }: NarrowOutputs, factor: number, target?: Tensor): Tensor {
  using columns = sliceColumns(inner, first, first + b.shape[1]!);
  const into = target && multiple(target, 1);
  return gemm(columns, b, { transposeB: true, alpha: factor, ...into ? { into, beta: 1 } : {} });
}
