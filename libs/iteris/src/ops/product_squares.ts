import {
  defineOperation,
  gemm,
  type GpuDevice,
  type Kernel,
  scaleRows,
  sumOfSquares,
  type Tensor,
} from "@lora-loom/tensor";

/** Rows and outputs of a workgroup's tile, and of one invocation's part of it. */
const TILE = 64;
const EACH = 4;
const INVOCATIONS = (TILE / EACH) ** 2;
/** Columns of the factors that are staged together. */
const DEPTH = 16;
/** Outputs that a workgroup goes through, tile by tile. */
const STRIP = 1024;

const PRODUCT_SQUARES: Kernel = {
  name: "iteris_product_squares",
  buffers: [
    { name: "rows", element: "f32", access: "read" },
    { name: "outputs", element: "f32", access: "read" },
    { name: "weights", element: "f32", access: "read" },
    { name: "sums", element: "f32", access: "read_write" },
  ],
  params: [["m", "u32"], ["n", "u32"], ["inner", "u32"]],
  code: /* wgsl */ `
var<workgroup> staged_rows: array<array<vec4f, ${TILE / EACH}>, ${DEPTH}>;
var<workgroup> staged_outputs: array<array<vec4f, ${TILE / EACH}>, ${DEPTH}>;
var<workgroup> squares: array<f32, ${INVOCATIONS}>;

fn row_value(row: u32, k: u32) -> f32 {
  if (row >= params.m || k >= params.inner) { return 0.0; }
  return rows[row * params.inner + k];
}
fn output_value(output: u32, k: u32) -> f32 {
  if (output >= params.n || k >= params.inner) { return 0.0; }
  return outputs[output * params.inner + k];
}

@compute @workgroup_size(${INVOCATIONS})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let tx = lane % ${TILE / EACH}u;
  let ty = lane / ${TILE / EACH}u;
  // Every invocation stages one vec4 of each factor: the same ${EACH} rows or outputs of one column.
  let first_row = group.x * ${TILE}u;
  let strip = group.y * ${STRIP}u;
  var total = vec4f(0.0);
  for (var first = strip; first < min(strip + ${STRIP}u, params.n); first += ${TILE}u) {
    var sum0 = vec4f(0.0);
    var sum1 = vec4f(0.0);
    var sum2 = vec4f(0.0);
    var sum3 = vec4f(0.0);
    for (var k = 0u; k < params.inner; k += ${DEPTH}u) {
      workgroupBarrier();
      let row = first_row + ${EACH}u * tx;
      let output = first + ${EACH}u * tx;
      staged_rows[ty][tx] = vec4f(row_value(row, k + ty), row_value(row + 1u, k + ty), row_value(row + 2u, k + ty), row_value(row + 3u, k + ty));
      staged_outputs[ty][tx] = vec4f(output_value(output, k + ty), output_value(output + 1u, k + ty), output_value(output + 2u, k + ty), output_value(output + 3u, k + ty));
      workgroupBarrier();
      for (var i = 0u; i < ${DEPTH}u; i++) {
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
  ${reduceLanes("squares")}
  if (lane == 0u) { sums[group.y * groups.x + group.x] = squares[0]; }
}`,
};

const SUM: Kernel = {
  name: "iteris_sum",
  buffers: [
    { name: "parts", element: "f32", access: "read" },
    { name: "total", element: "f32", access: "read_write" },
  ],
  params: [["count", "u32"]],
  code: /* wgsl */ `
var<workgroup> sums: array<f32, ${INVOCATIONS}>;
@compute @workgroup_size(${INVOCATIONS})
fn main(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var i = lane; i < params.count; i += ${INVOCATIONS}u) { sum += parts[i]; }
  sums[lane] = sum;
  ${reduceLanes("sums")}
  if (lane == 0u) { total[0] = sums[0]; }
}`,
};

/** Adds up what the invocations of a workgroup put into an array, in its first element. */
function reduceLanes(sums: string): string {
  return /* wgsl */ `
  workgroupBarrier();
  for (var half = ${INVOCATIONS / 2}u; half > 0u; half /= 2u) {
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
  kernels: [PRODUCT_SQUARES, SUM],
  gpu(device, rows, outputs, rootWeights) {
    // Drivers that run on the CPU gain nothing from workgroup memory.
    const squares = device.info.class === "software" ? storedSquares : unstoredSquares;
    return squares(rows, outputs, rootWeights);
  },
  cpu: (_, rows, outputs, rootWeights) => storedSquares(rows, outputs, rootWeights),
});

/** What hardware runs. */
export function unstoredSquares(rows: Tensor, outputs: Tensor, rootWeights: Tensor): Tensor {
  const device = rows.device as GpuDevice;
  const [[m, inner], [n]] = [rows.shape as [number, number], outputs.shape as [number, number]];
  const grid = [Math.ceil(m / TILE), Math.ceil(n / STRIP)] as const;
  const count = grid[0] * grid[1];
  using sums = device.empty([count]);
  device.dispatch(PRODUCT_SQUARES, [rows, outputs, rootWeights, sums], [m, n, inner], grid);
  const total = device.empty([1]);
  device.dispatch(SUM, [sums, total], [count], [1]);
  return total;
}

function storedSquares(rows: Tensor, outputs: Tensor, rootWeights: Tensor): Tensor {
  using weighted = scaleRows(rows, rootWeights);
  using product = gemm(weighted, outputs, { transposeB: true });
  return sumOfSquares(product);
}
