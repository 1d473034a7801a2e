import {
  type CpuDevice,
  type CpuTensor,
  defineOperation,
  type GpuDevice,
  type Kernel,
  matrixShape,
  requireShape,
  type Tensor,
} from "@lora-loom/tensor";
import type { AttentionHeads } from "./attention.ts";
import { FOR_EACH_ELEMENT, grid, LANES } from "./grid.ts";

/** Gradients at the inputs of `attention`, in their shapes. */
export interface AttentionGradients {
  readonly queries: Tensor;
  readonly keys: Tensor;
  readonly values: Tensor;
}

const params: Kernel["params"] = [
  ["count", "u32"],
  ["query_heads", "u32"],
  ["key_value_heads", "u32"],
  ["scale", "f32"],
  ["quads", "u32"],
];

/**
 * One invocation per query row and head. With p the softmax of a query's scores and δ_j = p_j (v_j·g − o·g), the gradient at the
 * query is Σ_j δ_j k_j / √d (arXiv 2205.14135, algorithm 4). The largest score's exponent and o·g are kept for the other kernel.
 */
const queryKernel: Kernel = {
  name: "attention_backward_queries",
  buffers: [
    { name: "queries", element: "vec4f", access: "read" },
    { name: "keys", element: "vec4f", access: "read" },
    { name: "values", element: "vec4f", access: "read" },
    { name: "spans", element: "u32", access: "read" },
    { name: "output", element: "vec4f", access: "read" },
    { name: "gradient", element: "vec4f", access: "read" },
    { name: "at_queries", element: "vec4f", access: "read_write" },
    { name: "statistics", element: "vec2f", access: "read_write" },
  ],
  params,
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  let row = i / params.query_heads;
  let head = i - row * params.query_heads;
  let key_value_head = head / (params.query_heads / params.key_value_heads);
  let first_key = spans[2u * row];
  let key_count = spans[2u * row + 1u];
  let mine = i * params.quads;
  var highest = -3e38;
  var sum = 0.0;
  for (var j = 0u; j < key_count; j++) {
    let at = ((first_key + j) * params.key_value_heads + key_value_head) * params.quads;
    var dots = vec4f();
    for (var d = 0u; d < params.quads; d++) { dots = fma(queries[mine + d], keys[at + d], dots); }
    let score = (dots.x + dots.y + dots.z + dots.w) * params.scale;
    let above = max(highest, score);
    sum = sum * exp(highest - above) + exp(score - above);
    highest = above;
  }
  let log_sum = highest + log(sum);
  var through = vec4f();
  for (var d = 0u; d < params.quads; d++) {
    through = fma(output[mine + d], gradient[mine + d], through);
    at_queries[mine + d] = vec4f();
  }
  let along = through.x + through.y + through.z + through.w;
  statistics[i] = vec2f(log_sum, along);
  for (var j = 0u; j < key_count; j++) {
    let at = ((first_key + j) * params.key_value_heads + key_value_head) * params.quads;
    var dots = vec4f();
    var pulls = vec4f();
    for (var d = 0u; d < params.quads; d++) {
      dots = fma(queries[mine + d], keys[at + d], dots);
      pulls = fma(gradient[mine + d], values[at + d], pulls);
    }
    let weight = exp((dots.x + dots.y + dots.z + dots.w) * params.scale - log_sum);
    let delta = weight * (pulls.x + pulls.y + pulls.z + pulls.w - along) * params.scale;
    for (var d = 0u; d < params.quads; d++) {
      at_queries[mine + d] = fma(keys[at + d], vec4f(delta), at_queries[mine + d]);
    }
  }
}`,
};

/** One invocation per key row and key/value head: gathers from every query that sees the key, so that nothing is added twice. */
const keyKernel: Kernel = {
  name: "attention_backward_keys",
  buffers: [
    { name: "queries", element: "vec4f", access: "read" },
    { name: "keys", element: "vec4f", access: "read" },
    { name: "values", element: "vec4f", access: "read" },
    { name: "viewers", element: "u32", access: "read" },
    { name: "gradient", element: "vec4f", access: "read" },
    { name: "statistics", element: "vec2f", access: "read" },
    { name: "at_keys", element: "vec4f", access: "read_write" },
    { name: "at_values", element: "vec4f", access: "read_write" },
  ],
  params,
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  let row = i / params.key_value_heads;
  let key_value_head = i - row * params.key_value_heads;
  let shared_by = params.query_heads / params.key_value_heads;
  let first_query = viewers[2u * row];
  let query_count = viewers[2u * row + 1u];
  let mine = i * params.quads;
  for (var d = 0u; d < params.quads; d++) {
    at_keys[mine + d] = vec4f();
    at_values[mine + d] = vec4f();
  }
  for (var j = 0u; j < query_count; j++) {
    for (var h = 0u; h < shared_by; h++) {
      let unit = (first_query + j) * params.query_heads + key_value_head * shared_by + h;
      let at = unit * params.quads;
      var dots = vec4f();
      var pulls = vec4f();
      for (var d = 0u; d < params.quads; d++) {
        dots = fma(queries[at + d], keys[mine + d], dots);
        pulls = fma(gradient[at + d], values[mine + d], pulls);
      }
      let known = statistics[unit];
      let weight = exp((dots.x + dots.y + dots.z + dots.w) * params.scale - known.x);
      let delta = weight * (pulls.x + pulls.y + pulls.z + pulls.w - known.y) * params.scale;
      for (var d = 0u; d < params.quads; d++) {
        at_keys[mine + d] = fma(queries[at + d], vec4f(delta), at_keys[mine + d]);
        at_values[mine + d] = fma(gradient[at + d], vec4f(weight), at_values[mine + d]);
      }
    }
  }
}`,
};

type Operands = readonly [
  queries: Tensor,
  keys: Tensor,
  values: Tensor,
  output: Tensor,
  gradient: Tensor,
  spans: Tensor,
  viewers: Tensor,
];

function check([queries, keys, values, output, gradient, spans, viewers]: Operands, heads: AttentionHeads) {
  const where = "attention_backward";
  const [rows] = matrixShape(queries, where), [keyRows] = matrixShape(keys, where);
  requireShape(queries, [rows, heads.queryHeads * heads.headDim], "queries", where);
  requireShape(keys, [keyRows, heads.keyValueHeads * heads.headDim], "keys", where);
  requireShape(values, keys.shape, "values", where);
  requireShape(output, queries.shape, "output", where);
  requireShape(gradient, queries.shape, "gradient", where);
  requireShape(spans, [rows, 2], "spans", where);
  requireShape(viewers, [keyRows, 2], "viewers", where);
  return { rows, keyRows };
}

function onGpu(device: GpuDevice, operands: Operands, heads: AttentionHeads): AttentionGradients {
  const { rows, keyRows } = check(operands, heads);
  const [queries, keys, values, output, gradient, spans, viewers] = operands;
  const { queryHeads, keyValueHeads, headDim } = heads;
  const result = {
    queries: device.empty(queries.shape),
    keys: device.empty(keys.shape),
    values: device.empty(values.shape),
  };
  using statistics = device.empty([rows, queryHeads, 2]);
  const common = [queryHeads, keyValueHeads, 1 / Math.sqrt(headDim), headDim / 4];
  device.dispatch(
    queryKernel,
    [queries, keys, values, spans, output, gradient, result.queries, statistics],
    [rows * queryHeads, ...common],
    grid(rows * queryHeads, LANES),
  );
  device.dispatch(
    keyKernel,
    [queries, keys, values, viewers, gradient, statistics, result.keys, result.values],
    [keyRows * keyValueHeads, ...common],
    grid(keyRows * keyValueHeads, LANES),
  );
  return result;
}

/** Straight from the definition: the softmax of each query's scores, then the chain rule through it. */
function inFloat64(device: CpuDevice, operands: Operands, heads: AttentionHeads): AttentionGradients {
  const { rows } = check(operands, heads);
  const [queries, keys, values, , gradient, spans] = operands as readonly Tensor[] as readonly CpuTensor[];
  const { queryHeads, keyValueHeads, headDim } = heads;
  const result = {
    queries: device.zeros(queries!.shape),
    keys: device.zeros(keys!.shape),
    values: device.zeros(values!.shape),
  };
  const keyWidth = keyValueHeads * headDim;
  const run = (matrix: CpuTensor, at: number) => matrix.floats.subarray(at, at + headDim);
  const dot = (u: Float64Array, v: Float64Array) => u.reduce((sum, value, d) => sum + value * v[d]!, 0);
  for (let i = 0; i < rows * queryHeads; i++) {
    const row = Math.floor(i / queryHeads);
    const column = Math.floor((i % queryHeads) * keyValueHeads / queryHeads) * headDim;
    const first = spans!.data[2 * row]!, count = spans!.data[2 * row + 1]!;
    const places = Array.from({ length: count }, (_, j) => (first + j) * keyWidth + column);
    const query = run(queries!, i * headDim), at = run(gradient!, i * headDim);
    const atQuery = run(result.queries, i * headDim);
    const scores = places.map((place) => dot(query, run(keys!, place)) / Math.sqrt(headDim));
    const highest = scores.reduce((above, score) => Math.max(above, score));
    const raised = scores.map((score) => Math.exp(score - highest));
    const total = raised.reduce((sum, value) => sum + value, 0);
    const pulls = places.map((place) => dot(at, run(values!, place)));
    const along = pulls.reduce((sum, pull, j) => sum + pull * raised[j]! / total, 0);
    places.forEach((place, j) => {
      const weight = raised[j]! / total;
      const delta = weight * (pulls[j]! - along) / Math.sqrt(headDim);
      const key = run(keys!, place), atKey = run(result.keys, place), atValue = run(result.values, place);
      for (let d = 0; d < headDim; d++) {
        atQuery[d]! += delta * key[d]!;
        atKey[d]! += delta * query[d]!;
        atValue[d]! += weight * at[d]!;
      }
    });
  }
  return result;
}

/**
 * Gradients at the inputs of `attention` from the one at its output, both `[rows, queryHeads·headDim]`.
 *
 * @param spans as `attention` takes them
 * @param viewers u32 `[keyRows, 2]`: of each key row, the first query row that sees it and how many do; the spans seen the other way
 */
export const attentionBackward: (
  queries: Tensor,
  keys: Tensor,
  values: Tensor,
  output: Tensor,
  gradient: Tensor,
  spans: Tensor,
  viewers: Tensor,
  heads: AttentionHeads,
) => AttentionGradients = defineOperation<
  [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, AttentionHeads],
  AttentionGradients
>({
  name: "attention_backward",
  kernels: [queryKernel, keyKernel],
  gpu: (device, queries, keys, values, output, gradient, spans, viewers, heads) =>
    onGpu(device, [queries, keys, values, output, gradient, spans, viewers], heads),
  cpu: (device, queries, keys, values, output, gradient, spans, viewers, heads) =>
    inFloat64(device, [queries, keys, values, output, gradient, spans, viewers], heads),
});
