import {
  defineOperation,
  ERROR_FREE,
  gemm,
  gram,
  type Kernel,
  scaleRows,
  type Tensor,
} from "@lora-loom/tensor";

const WORKGROUP = 64;
/** Columns of X and of Y per invocation, which loads and splits an element of either once for several results; those of Y are a workgroup apart. */
const COLUMNS_X = 4;
const COLUMNS_Y = 2;

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
/** Adds x·y of four columns of X: the product of the heads without error, the rest, 2⁻¹² times smaller, in f32. */
fn accumulate(sum: Pairs, x_head: vec4f, x_tail: vec4f, y: f32) -> Pairs {
  let y_head = head(y);
  let y_tail = y - y_head;
  let next = two_sum4(sum.high, x_head * y_head);
  let rest = x_head * y_tail + (x_tail * y_head + x_tail * y_tail);
  return Pairs(next.high, sum.low + (next.low + rest));
}

@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let column = group.x * ${COLUMNS_Y * WORKGROUP}u + lane;
  let first = group.y * ${COLUMNS_X}u;
  // Of a symmetric sum, only what is on or below the diagonal is worked out.
  let top = select(0u, column, params.symmetric != 0u);
  if (column >= params.n || first + ${COLUMNS_X - 1}u < top) { return; }
  let of_x = min(vec4u(first) + vec4u(0u, 1u, 2u, 3u), vec4u(params.m - 1u));
  let of_y = min(vec2u(column, column + ${WORKGROUP}u), vec2u(params.n - 1u));
  var left = Pairs(vec4f(0.0), vec4f(0.0));
  var right = Pairs(vec4f(0.0), vec4f(0.0));
  for (var t = 0u; t < params.tokens; t++) {
    let at = t * params.m + of_x;
    let values = vec4f(x[at.x], x[at.y], x[at.z], x[at.w]);
    let x_head = head4(values);
    let x_tail = values - x_head;
    let weight = weights[t];
    left = accumulate(left, x_head, x_tail, guarded(y[t * params.n + of_y.x] * weight));
    right = accumulate(right, x_head, x_tail, guarded(y[t * params.n + of_y.y] * weight));
  }
  // What was there comes last, in a loop whose bounds no compiler knows: software drivers take long to compile a load.
  for (var i = 0u; i < min(${COLUMNS_X}u, params.m - first) * ${COLUMNS_Y}u; i++) {
    let is_left = i % ${COLUMNS_Y}u == 0u;
    let c = i / ${COLUMNS_Y}u;
    let row = first + c;
    let to = column + select(${WORKGROUP}u, 0u, is_left);
    if (to >= params.n || (params.symmetric != 0u && row < to)) { continue; }
    let at = row * params.n + to;
    let sum = two_sum(high[at], select(right.high[c], left.high[c], is_left));
    let both = two_sum(sum.high, sum.low + (low[at] + select(right.low[c], left.low[c], is_left)));
    high[at] = both.high;
    low[at] = both.low;
    if (params.symmetric != 0u) {
      let mirrored = to * params.n + row;
      high[mirrored] = both.high;
      low[mirrored] = both.low;
    }
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
      const workgroups = [Math.ceil(n / (COLUMNS_Y * WORKGROUP)), Math.ceil(m / COLUMNS_X)] as const;
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
