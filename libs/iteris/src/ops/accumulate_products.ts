import {
  defineOperation,
  ERROR_FREE,
  gemm,
  gram,
  type Kernel,
  scaleRows,
  type Tensor,
} from "@lora-loom/tensor";

/** Columns of X per invocation: the split of an element of Y serves them all. */
const COLUMNS = 8;
const WORKGROUP = 64;

function perColumn(line: (column: number) => string): string {
  return Array.from({ length: COLUMNS }, (_, column) => line(column)).join("\n");
}

const ACCUMULATE_PRODUCTS: Kernel = {
  name: "iteris_accumulate_products",
  buffers: [
    { name: "x", element: "f32", access: "read" },
    { name: "y", element: "f32", access: "read" },
    { name: "weights", element: "f32", access: "read" },
    { name: "high", element: "f32", access: "read_write" },
    { name: "low", element: "f32", access: "read_write" },
  ],
  params: [["tokens", "u32"], ["m", "u32"], ["n", "u32"], ["symmetric", "u32"], ["zero", "u32"]],
  code: /* wgsl */ `
${ERROR_FREE}
/** Adds x·y: the product of the heads without error, the rest, 2⁻¹² times smaller, in f32. */
fn accumulate(sum: Pair, x: f32, y_head: f32, y_tail: f32) -> Pair {
  let x_head = head(x);
  let x_tail = x - x_head;
  let next = two_sum(sum.high, x_head * y_head);
  let rest = x_head * y_tail + (x_tail * y_head + x_tail * y_tail);
  return Pair(next.high, sum.low + (next.low + rest));
}

@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x;
  let first = id.y * ${COLUMNS}u;
  // Of a symmetric sum, only what is on or below the diagonal is worked out.
  let top = select(0u, column, params.symmetric != 0u);
  if (column >= params.n || first + ${COLUMNS - 1}u < top) { return; }
  ${
    perColumn((i) => `
  let column${i} = min(first + ${i}u, params.m - 1u);
  var sum${i} = Pair(0.0, 0.0);
  if (column${i} >= top) {
    sum${i} = Pair(high[column${i} * params.n + column], low[column${i} * params.n + column]);
  }`)
  }
  for (var t = 0u; t < params.tokens; t++) {
    let value = guarded(y[t * params.n + column] * weights[t]);
    let y_head = head(value);
    let y_tail = value - y_head;
    let row = t * params.m;
    ${perColumn((i) => `sum${i} = accumulate(sum${i}, x[row + column${i}], y_head, y_tail);`)}
  }
  ${
    perColumn((i) => `
  if (first + ${i}u < params.m && first + ${i}u >= top) {
    let at${i} = (first + ${i}u) * params.n + column;
    let both${i} = two_sum(sum${i}.high, sum${i}.low);
    high[at${i}] = both${i}.high;
    low[at${i}] = both${i}.low;
    if (params.symmetric != 0u) {
      let mirrored${i} = column * params.n + first + ${i}u;
      high[mirrored${i}] = both${i}.high;
      low[mirrored${i}] = both${i}.low;
    }
  }`)
  }
}`,
};

/**
 * (high, low) += Xᵀ diag(weights) Y in place, with about 36 bits instead of f32's 24: `x` is `[tokens, m]`, `y` `[tokens, n]`, the
 * sums `[m, n]`. The same tensor twice gives an exactly symmetric sum, at half the work. Weights other than powers of two round Y. On the CPU all of it is float64, and `low` stays zero.
 */
export const accumulateProducts: (x: Tensor, y: Tensor, weights: Tensor, high: Tensor, low: Tensor) => void =
  defineOperation<[Tensor, Tensor, Tensor, Tensor, Tensor], void>({
    name: "iteris_accumulate_products",
    kernels: [ACCUMULATE_PRODUCTS],
    gpu(device, x, y, weights, high, low) {
      const [tokens, m] = x.shape as [number, number];
      const n = y.shape[1]!;
      const workgroups = [Math.ceil(n / WORKGROUP), Math.ceil(m / COLUMNS)] as const;
      device.dispatch(
        ACCUMULATE_PRODUCTS,
        [x, y, weights, high, low],
        [tokens, m, n, x === y ? 1 : 0, 0],
        workgroups,
      );
    },
    cpu(_device, x, y, weights, high) {
      if (x === y) {
        gram(x, { of: "columns", rowWeights: weights, beta: 1, into: high });
        return;
      }
      using weighted = scaleRows(y, weights);
      gemm(x, weighted, { transposeA: true, beta: 1, into: high });
    },
  });
