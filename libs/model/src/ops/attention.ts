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
import { FOR_EACH_ELEMENT, forEachGroup, type Grain, grainOf, grid, LANES } from "./grid.ts";

/** How the columns of queries, keys and values divide into heads. */
export interface AttentionHeads {
  readonly queryHeads: number;
  /** Divides `queryHeads`; each key/value head serves that many query heads (arXiv 2305.13245). */
  readonly keyValueHeads: number;
  /** A multiple of 4. */
  readonly headDim: number;
  /** Factor of the scores. Default 1/√headDim. */
  readonly attentionScale?: number;
  /** Bound c of the scores, which become c·tanh(score / c) (arXiv 2408.00118 §2). Default none. */
  readonly attentionSoftCap?: number;
}

/** What is added to scores by the distance of query and key. */
export interface DistanceBias {
  /** A row for every distance, `[distances, queryHeads]`. */
  readonly table: Tensor;
  /** The table's row for the first key that each query row sees, u32 `[rows]`; the next key has the next row. */
  readonly origins: Tensor;
}

const buffers: Kernel["buffers"] = [
  { name: "queries", element: "vec4f", access: "read" },
  { name: "keys", element: "vec4f", access: "read" },
  { name: "values", element: "vec4f", access: "read" },
  { name: "spans", element: "u32", access: "read" },
  { name: "result", element: "vec4f", access: "read_write" },
];
const params: Kernel["params"] = [["count", "u32"], ["query_heads", "u32"], ["key_value_heads", "u32"], [
  "scale",
  "f32",
], ["soft_cap", "f32"]];
const biasBuffers: Kernel["buffers"] = [
  { name: "bias", element: "f32", access: "read" },
  { name: "origins", element: "u32", access: "read" },
];

/** WGSL: from a scaled dot product in `score` to what the softmax takes, for the key `j` of the span. */
function finishScore(withBias: boolean, j: string): string {
  return /* wgsl */ `
    if (params.soft_cap > 0.0) { score = params.soft_cap * tanh(clamp(score / params.soft_cap, -20.0, 20.0)); }
    ${withBias ? `score += bias[(origins[row] + ${j}) * params.query_heads + head];` : ""}`;
}

/** WGSL shared by the variants: from the unit of work `i` to its row, its heads and the keys it sees. */
const LOCATE = /* wgsl */ `
  let row = i / params.query_heads;
  let head = i - row * params.query_heads;
  let key_value_head = head / (params.query_heads / params.key_value_heads);
  let first_key = spans[2u * row];
  let key_count = spans[2u * row + 1u];`;

// Far below any score, yet finite: WGSL may assume that there are no infinities.
const LOWEST = "-3e38";

/**
 * One invocation per row and head, with one pass over its keys (online softmax, arXiv 2205.14135): for drivers that run
 * invocations as SIMD lanes of a CPU. Sums stay in the result's memory, not in registers, and numbers are loaded one by one, because
 * those drivers take seconds to compile code that is unrolled over a head.
 */
const perInvocation = (withBias: boolean): Kernel => ({
  name: `attention_invocation_per_query${withBias ? "_biased" : ""}`,
  buffers: (withBias ? [...buffers, ...biasBuffers] : buffers).map((buffer) => ({
    ...buffer,
    element: buffer.element === "vec4f" ? "f32" : buffer.element,
  })),
  params: [...params, ["head_dim", "u32"]],
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  ${LOCATE}
  let mine = i * params.head_dim;
  var highest = ${LOWEST};
  var sum = 0.0;
  for (var j = 0u; j < key_count; j += 2u) {
    // Two keys share what is loaded of the query and of the sums; the last comes once more, and counts nothing, where there is no other.
    let both = j + 1u < key_count;
    let pair = vec2u(j, select(j, j + 1u, both));
    let at = ((first_key + pair) * params.key_value_heads + key_value_head) * params.head_dim;
    var scores = vec2f();
    for (var d = 0u; d < params.head_dim; d++) {
      scores = fma(vec2f(queries[mine + d]), vec2f(keys[at.x + d], keys[at.y + d]), scores);
    }
    scores *= params.scale;
    if (params.soft_cap > 0.0) {
      scores = params.soft_cap * tanh(clamp(scores / params.soft_cap, vec2f(-20.0), vec2f(20.0)));
    }
    ${
    withBias
      ? `let bias_rows = (origins[row] + pair) * params.query_heads + head;
    scores += vec2f(bias[bias_rows.x], bias[bias_rows.y]);`
      : ""
  }
    let above = max(highest, max(scores.x, scores.y));
    let shrink = exp(highest - above);
    var weights = exp(scores - above);
    if (!both) { weights.y = 0.0; }
    highest = above;
    sum = sum * shrink + weights.x + weights.y;
    for (var d = 0u; d < params.head_dim; d++) {
      let so_far = select(result[mine + d] * shrink, 0.0, j == 0u);
      result[mine + d] = fma(values[at.y + d], weights.y, fma(values[at.x + d], weights.x, so_far));
    }
  }
  for (var d = 0u; d < params.head_dim; d++) { result[mine + d] /= sum; }
}`,
});

const invocationKernels = { plain: perInvocation(false), biased: perInvocation(true) };

const GROUP = 64;

/**
 * One workgroup per row and head: 64 keys at a time are scored by one invocation each, then every invocation gathers its
 * own elements of the values. Unrolled for one head size.
 */
function perGroup(headDim: number, withBias: boolean): Kernel {
  const quads = headDim / 4;
  return {
    name: `attention_workgroup_per_query_${headDim}${withBias ? "_biased" : ""}`,
    buffers: withBias ? [...buffers, ...biasBuffers] : buffers,
    params,
    code: /* wgsl */ `
var<workgroup> query: array<vec4f, ${quads}>;
var<workgroup> weights: array<f32, ${GROUP}>;
var<workgroup> parts: array<vec4f, ${GROUP}>;
${forEachGroup(GROUP)}
  ${LOCATE}
  // The lanes form groups of one lane per four elements; each group takes its share of a tile's keys.
  const SHARES = ${Math.max(1, Math.floor(GROUP / quads))}u;
  let quad = lane % ${quads}u;
  let share = lane / ${quads}u;
  for (var d = lane; d < ${quads}u; d += ${GROUP}u) { query[d] = queries[i * ${quads}u + d] * params.scale; }
  workgroupBarrier();
  var highest = ${LOWEST};
  var sum = 0.0;
  var gathered = vec4f();
  for (var tile = 0u; tile < key_count; tile += ${GROUP}u) {
    let tile_keys = min(${GROUP}u, key_count - tile);
    var score = ${LOWEST};
    if (lane < tile_keys) {
      let at = ((first_key + tile + lane) * params.key_value_heads + key_value_head) * ${quads}u;
      var dots = vec4f();
      for (var d = 0u; d < ${quads}u; d++) { dots = fma(query[d], keys[at + d], dots); }
      score = dots.x + dots.y + dots.z + dots.w;
      ${finishScore(withBias, "tile + lane")}
    }
    weights[lane] = score;
    workgroupBarrier();
    var above = highest;
    for (var j = 0u; j < tile_keys; j++) { above = max(above, weights[j]); }
    workgroupBarrier();
    weights[lane] = select(0.0, exp(score - above), lane < tile_keys);
    workgroupBarrier();
    let shrink = exp(highest - above);
    highest = above;
    sum *= shrink;
    for (var j = 0u; j < tile_keys; j++) { sum += weights[j]; }
    gathered *= shrink;
    if (share < SHARES) {
      for (var j = share; j < tile_keys; j += SHARES) {
        let at = ((first_key + tile + j) * params.key_value_heads + key_value_head) * ${quads}u;
        gathered = fma(values[at + quad], vec4f(weights[j]), gathered);
      }
    }
    workgroupBarrier();
  }
  parts[lane] = gathered;
  workgroupBarrier();
  if (lane < ${quads}u) {
    var total = parts[lane];
    for (var s = 1u; s < SHARES; s++) { total += parts[s * ${quads}u + lane]; }
    result[i * ${quads}u + lane] = total / sum;
  }
}`,
    requires: { invocationsPerWorkgroup: GROUP, workgroupStorageBytes: headDim * 4 + GROUP * 20 },
  };
}

const groupKernels = new Map<string, Kernel>();

/** The workgroup kernel for a head size, made once. */
function groupKernelFor(headDim: number, withBias = false): Kernel {
  const key = `${headDim} ${withBias}`;
  const kernel = groupKernels.get(key) ?? perGroup(headDim, withBias);
  groupKernels.set(key, kernel);
  return kernel;
}

/** The factor of scores. */
export function scaleOf({ attentionScale, headDim }: AttentionHeads): number {
  return attentionScale ?? 1 / Math.sqrt(headDim);
}

/** Queues one variant, whatever the device's class; the operation chooses between them. */
export function dispatchAttention(
  device: GpuDevice,
  grain: Grain,
  queries: Tensor,
  keys: Tensor,
  values: Tensor,
  spans: Tensor,
  heads: AttentionHeads,
  bias?: DistanceBias,
): Tensor {
  const rows = checkShapes(queries, keys, values, spans, heads, bias);
  const { queryHeads, keyValueHeads, headDim, attentionSoftCap = 0 } = heads;
  const result = device.empty(queries.shape);
  const count = rows * queryHeads;
  const tensors = [queries, keys, values, spans, result, ...(bias ? [bias.table, bias.origins] : [])];
  const params = [count, queryHeads, keyValueHeads, scaleOf(heads), attentionSoftCap];
  if (grain === "workgroup") {
    device.dispatch(groupKernelFor(headDim, bias !== undefined), tensors, params, grid(count));
  } else {
    const kernel = invocationKernels[bias ? "biased" : "plain"];
    device.dispatch(kernel, tensors, [...params, headDim], grid(count, LANES));
  }
  return result;
}

function checkShapes(
  queries: Tensor,
  keys: Tensor,
  values: Tensor,
  spans: Tensor,
  heads: AttentionHeads,
  bias: DistanceBias | undefined,
): number {
  const [rows] = matrixShape(queries, "attention");
  const [keyRows] = matrixShape(keys, "attention");
  requireShape(queries, [rows, heads.queryHeads * heads.headDim], "queries", "attention");
  requireShape(keys, [keyRows, heads.keyValueHeads * heads.headDim], "keys", "attention");
  requireShape(values, keys.shape, "values", "attention");
  requireShape(spans, [rows, 2], "spans", "attention");
  if (bias) {
    requireShape(bias.table, [bias.table.shape[0]!, heads.queryHeads], "bias", "attention");
    requireShape(bias.origins, [rows], "origins", "attention");
  }
  return rows;
}

function attentionFloat64(
  device: CpuDevice,
  queries: CpuTensor,
  keys: CpuTensor,
  values: CpuTensor,
  spans: CpuTensor,
  heads: AttentionHeads,
  bias: DistanceBias | undefined,
): Tensor {
  const { queryHeads, keyValueHeads, headDim, attentionSoftCap: cap } = heads;
  const scale = scaleOf(heads);
  const result = device.zeros(queries.shape);
  const keyWidth = keyValueHeads * headDim;
  const headOf = (matrix: CpuTensor, at: number) => matrix.floats.subarray(at, at + headDim);
  for (let i = 0; i < queries.shape[0]! * queryHeads; i++) {
    const row = Math.floor(i / queryHeads), head = i % queryHeads;
    const column = Math.floor(head * keyValueHeads / queryHeads) * headDim;
    const first = spans.data[2 * row]!, count = spans.data[2 * row + 1]!;
    const query = headOf(queries, i * headDim);
    const scores = Array.from({ length: count }, (_, j) => {
      const key = headOf(keys, (first + j) * keyWidth + column);
      const score = query.reduce((dot, value, d) => dot + value * key[d]!, 0) * scale;
      return (cap ? cap * Math.tanh(score / cap) : score) + biasOf(bias, row, j, head, queryHeads);
    });
    const highest = scores.reduce((above, score) => Math.max(above, score));
    const weights = scores.map((score) => Math.exp(score - highest));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    const out = headOf(result, i * headDim);
    weights.forEach((weight, j) => {
      headOf(values, (first + j) * keyWidth + column).forEach((value, d) => out[d]! += weight / sum * value);
    });
  }
  return result;
}

/** What is added to a query row's score for key `j` of its span; on the CPU. */
export function biasOf(
  bias: DistanceBias | undefined,
  row: number,
  j: number,
  head: number,
  heads: number,
): number {
  if (!bias) return 0;
  const distance = (bias.origins as CpuTensor).data[row]! + j;
  return (bias.table as CpuTensor).floats[distance * heads + head]!;
}

/**
 * Grouped-query attention over ragged batches, softmax(QKᵀ/√headDim)·V, where each query row names the run of key rows that
 * it sees: `queries [rows, queryHeads·headDim]`, `keys` and `values [keyRows, keyValueHeads·headDim]`, `spans` u32
 * `[rows, 2]` of first key row and number of keys (at least 1) → `[rows, queryHeads·headDim]`. Causal prefill gives row t of
 * a sequence the span (start, t + 1); a decoding step gives each sequence its whole cache. A soft cap comes before `bias`.
 */
export const attention: (
  queries: Tensor,
  keys: Tensor,
  values: Tensor,
  spans: Tensor,
  heads: AttentionHeads,
  bias?: DistanceBias,
) => Tensor = defineOperation<[Tensor, Tensor, Tensor, Tensor, AttentionHeads, DistanceBias?], Tensor>({
  name: "attention",
  // Kernels for other head sizes are made on demand from the same text.
  kernels: [...Object.values(invocationKernels), groupKernelFor(64), groupKernelFor(128)],
  gpu: (device, ...args) => dispatchAttention(device, grainOf(device), ...args),
  cpu(device, queries, keys, values, spans, heads, bias) {
    checkShapes(queries, keys, values, spans, heads, bias);
    return attentionFloat64(
      device,
      queries as CpuTensor,
      keys as CpuTensor,
      values as CpuTensor,
      spans as CpuTensor,
      heads,
      bias,
    );
  },
});
