import {
  defineOperation,
  gemm,
  type GpuDevice,
  type Kernel,
  scaleRows,
  sumOfSquares,
  type Tensor,
} from "@lora-loom/tensor";

/** Rows and outputs of one invocation's part of a tile. */
const EACH = 4;
/** Tiles of outputs that a workgroup goes through. */
const STRIP_TILES = 16;

/** One size of the kernel for hardware. */
export interface SquaresKernel {
  readonly kernel: Kernel;
  /** Rows and outputs of a workgroup's tile. */
  readonly tile: number;
}

/**
 * The kernel for hardware.
 *
 * @param side invocations along each side of a workgroup, and columns of the factors that are staged together
 */
export function squaresKernel(side: number): SquaresKernel {
  const tile = EACH * side;
  const strip = STRIP_TILES * tile;
  const kernel: Kernel = {
    name: `iteris_product_squares_${tile}`,
    buffers: [
      { name: "rows", element: "f32", access: "read" },
      { name: "outputs", element: "f32", access: "read" },
      { name: "weights", element: "f32", access: "read" },
      { name: "sums", element: "f32", access: "read_write" },
    ],
    params: [["m", "u32"], ["n", "u32"], ["inner", "u32"]],
    code: /* wgsl */ `
var<workgroup> staged_rows: array<array<vec4f, ${side}>, ${side}>;
var<workgroup> staged_outputs: array<array<vec4f, ${side}>, ${side}>;
var<workgroup> squares: array<f32, ${side * side}>;

fn row_value(row: u32, k: u32) -> f32 {
  if (row >= params.m || k >= params.inner) { return 0.0; }
  return rows[row * params.inner + k];
}
fn output_value(output: u32, k: u32) -> f32 {
  if (output >= params.n || k >= params.inner) { return 0.0; }
  return outputs[output * params.inner + k];
}

@compute @workgroup_size(${side * side})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let tx = lane % ${side}u;
  let ty = lane / ${side}u;
  // Every invocation stages one vec4 of each factor: the same ${EACH} rows or outputs of one column.
  let first_row = group.x * ${tile}u;
  let strip = group.y * ${strip}u;
  var total = vec4f(0.0);
  for (var first = strip; first < min(strip + ${strip}u, params.n); first += ${tile}u) {
    var sum0 = vec4f(0.0);
    var sum1 = vec4f(0.0);
    var sum2 = vec4f(0.0);
    var sum3 = vec4f(0.0);
    for (var k = 0u; k < params.inner; k += ${side}u) {
      workgroupBarrier();
      let row = first_row + ${EACH}u * tx;
      let output = first + ${EACH}u * tx;
      staged_rows[ty][tx] = vec4f(row_value(row, k + ty), row_value(row + 1u, k + ty), row_value(row + 2u, k + ty), row_value(row + 3u, k + ty));
      staged_outputs[ty][tx] = vec4f(output_value(output, k + ty), output_value(output + 1u, k + ty), output_value(output + 2u, k + ty), output_value(output + 3u, k + ty));
      workgroupBarrier();
      for (var i = 0u; i < ${side}u; i++) {
        let x = staged_rows[i][ty];
        let c = staged_outputs[i][tx];
        sum0 = fma(vec4f(x.x), c, sum0);
        sum1 = fma(vec4f(x.y), c, sum1);
        sum2 = fma(vec4f(x.z), c, sum2);
        sum3 = fma(vec4f(x.w), c, sum3);
      }
    }
    total += vec4f(dot(sum0, sum0), dot(sum1, sum1), dot(sum2, sum2), dot(sum3, sum3));
  }
  var weighted = 0.0;
  for (var r = 0u; r < ${EACH}u; r++) {
    let row = first_row + ${EACH}u * ty + r;
    if (row < params.m) { weighted += total[r] * weights[row] * weights[row]; }
  }
  squares[lane] = weighted;
  ${reduceLanes("squares", side * side)}
  if (lane == 0u) { sums[group.y * groups.x + group.x] = squares[0]; }
}`,
  };
  return { kernel, tile };
}

const FOR_HARDWARE = squaresKernel(16);

/** Invocations that add up what the workgroups found. */
const ADDERS = 256;

const SUM: Kernel = {
  name: "iteris_sum",
  buffers: [
    { name: "parts", element: "f32", access: "read" },
    { name: "total", element: "f32", access: "read_write" },
  ],
  params: [["count", "u32"]],
  code: /* wgsl */ `
var<workgroup> sums: array<f32, ${ADDERS}>;
@compute @workgroup_size(${ADDERS})
fn main(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var i = lane; i < params.count; i += ${ADDERS}u) { sum += parts[i]; }
  sums[lane] = sum;
  ${reduceLanes("sums", ADDERS)}
  if (lane == 0u) { total[0] = sums[0]; }
}`,
};

/** WGSL: adds up what the `lanes` invocations of a workgroup put into an array, in its first element. */
function reduceLanes(sums: string, lanes: number): string {
  return /* wgsl */ `
  workgroupBarrier();
  for (var half = ${lanes / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { ${sums}[lane] += ${sums}[lane + half]; }
    workgroupBarrier();
  }`;
}

/**
 * ‖diag(rootWeights) rows · outputsᵀ‖²_F, `[1]`, of factors `[m, inner]` and `[n, inner]` with few columns: the product itself, `[m, n]`, is
 * never stored.
 *
 * @param rootWeights `[m]`
 */
export const productSquares: (rows: Tensor, outputs: Tensor, rootWeights: Tensor) => Tensor = defineOperation<
  [Tensor, Tensor, Tensor],
  Tensor
>({
  name: "iteris_product_squares",
  kernels: [FOR_HARDWARE.kernel, SUM],
  gpu(device, rows, outputs, rootWeights) {
    // Drivers that run on the CPU gain nothing from workgroup memory.
    const squares = device.info.class === "software" ? storedSquares : unstoredSquares;
    return squares(rows, outputs, rootWeights);
  },
  cpu: (_, rows, outputs, rootWeights) => storedSquares(rows, outputs, rootWeights),
});

/** What hardware runs; at another size in tests, since software drivers take seconds to compile it. */
export function unstoredSquares(
  rows: Tensor,
  outputs: Tensor,
  rootWeights: Tensor,
  { kernel, tile }: SquaresKernel = FOR_HARDWARE,
): Tensor {
  const device = rows.device as GpuDevice;
  const [[m, inner], [n]] = [rows.shape as [number, number], outputs.shape as [number, number]];
  const grid = [Math.ceil(m / tile), Math.ceil(n / (STRIP_TILES * tile))] as const;
  const count = grid[0] * grid[1];
  using sums = device.empty([count]);
  device.dispatch(kernel, [rows, outputs, rootWeights, sums], [m, n, inner], grid);
  const total = device.empty([1]);
  device.dispatch(SUM, [sums, total], [count], [1]);
  return total;
}

function storedSquares(rows: Tensor, outputs: Tensor, rootWeights: Tensor): Tensor {
  using weighted = scaleRows(rows, rootWeights);
  using product = gemm(weighted, outputs, { transposeB: true });
  return sumOfSquares(product);
}
