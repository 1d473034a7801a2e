import {
  type CpuDevice,
  type CpuTensor,
  defineOperation,
  type GpuDevice,
  type Kernel,
  matrixShape,
  requireShape,
  sliceColumns,
  type Tensor,
} from "@lora-loom/tensor";
import { type AttentionHeads, biasOf, type DistanceBias, scaleOf } from "./attention.ts";
import { FOR_EACH_ELEMENT, grid, LANES } from "./grid.ts";
import { elementOf, type HeadElement, NUMBERS_IN, sumOf } from "./head_elements.ts";

/** Gradients at the inputs of `attention`, in their shapes. */
export interface AttentionGradients {
  readonly queries: Tensor;
  readonly keys: Tensor;
  readonly values: Tensor;
}

/** One of the forms in which each kernel exists. */
interface Form {
  readonly element: HeadElement;
  readonly withBias: boolean;
}

function nameOf(kernel: string, { element, withBias }: Form): string {
  return `attention_backward_${kernel}${withBias ? "_biased" : ""}_by_${element}`;
}

const params: Kernel["params"] = [
  ["count", "u32"],
  ["query_heads", "u32"],
  ["key_value_heads", "u32"],
  ["scale", "f32"],
  ["soft_cap", "f32"],
  // Elements of a head.
  ["width", "u32"],
];

const read = ({ element }: Form, ...names: readonly string[]): Kernel["buffers"] =>
  names.map((name) => ({ name, element, access: "read" }));
const biasTable: Kernel["buffers"] = [{ name: "bias", element: "f32", access: "read" }];
const statistics: Kernel["buffers"] = [{ name: "statistics", element: "vec4f", access: "read" }];

/**
 * WGSL: from the products in `dots_x` and `dots_y`, of a query and a key each, to the scores that the softmax takes, and to `slopes`, their
 * derivatives by the unscaled products. The rows are those of the bias table, the heads the queries'.
 */
function scoresOf(
  { element, withBias }: Form,
  [firstRow, secondRow]: readonly [string, string],
  [firstHead, secondHead]: readonly [string, string],
): string {
  return /* wgsl */ `
    var scores = vec2f(${sumOf(element, "dots_x")}, ${sumOf(element, "dots_y")}) * params.scale;
    var slopes = vec2f(params.scale);
    if (params.soft_cap > 0.0) {
      let bent = tanh(clamp(scores / params.soft_cap, vec2f(-20.0), vec2f(20.0)));
      scores = params.soft_cap * bent;
      slopes *= 1.0 - bent * bent;
    }
    ${
    withBias
      ? `scores += vec2f(
      bias[u32(${firstRow}) * params.query_heads + ${firstHead}],
      bias[u32(${secondRow}) * params.query_heads + ${secondHead}],
    );`
      : ""
  }`;
}

/** WGSL: where the keys `j` and j + 1 of a query begin; the last once more where there is no other. */
const LOCATE_KEYS = /* wgsl */ `
    let both = j + 1u < key_count;
    let key = first_key + vec2u(j, select(j, j + 1u, both));
    let at = (key * params.key_value_heads + key_value_head) * params.width;`;

/** WGSL: from the unit of work `i` to its query row and what that sees. */
const LOCATE_QUERY = /* wgsl */ `
  let row = i / params.query_heads;
  let head = i - row * params.query_heads;
  let key_value_head = head / (params.query_heads / params.key_value_heads);
  let first_key = spans[2u * row];
  let key_count = spans[2u * row + 1u];
  let mine = i * params.width;`;

/**
 * One invocation per query row and head: what the other kernels need of a softmax, which is the logarithm of its sum and o·g, of the
 * attention's output and the gradient there. The third number leads from key rows to rows of the bias table; it is exact below 2²⁴.
 */
const statisticsKernel = (form: Form): Kernel => ({
  name: nameOf("statistics", form),
  buffers: [
    ...read(form, "queries", "keys"),
    { name: "spans", element: "u32", access: "read" },
    ...read(form, "output", "gradient"),
    { name: "statistics", element: "vec4f", access: "read_write" },
    ...(form.withBias ? [...biasTable, { name: "origins", element: "u32", access: "read" } as const] : []),
  ],
  params,
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  ${LOCATE_QUERY}
  let first_bias = ${form.withBias ? "i32(origins[row]) - i32(first_key)" : "0"};
  var highest = -3e38;
  var sum = 0.0;
  for (var j = 0u; j < key_count; j += 2u) {
    ${LOCATE_KEYS}
    var dots_x = ${form.element}();
    var dots_y = ${form.element}();
    for (var d = 0u; d < params.width; d++) {
      let query = queries[mine + d];
      dots_x = fma(query, keys[at.x + d], dots_x);
      dots_y = fma(query, keys[at.y + d], dots_y);
    }
    ${scoresOf(form, ["first_bias + i32(key.x)", "first_bias + i32(key.y)"], ["head", "head"])}
    let above = max(highest, max(scores.x, scores.y));
    let raised = exp(scores - above);
    sum = sum * exp(highest - above) + raised.x + select(0.0, raised.y, both);
    highest = above;
  }
  var through = ${form.element}();
  for (var d = 0u; d < params.width; d++) { through = fma(output[mine + d], gradient[mine + d], through); }
  let along = ${sumOf(form.element, "through")};
  statistics[i] = vec4f(highest + log(sum), along, f32(first_bias), 0.0);
}`,
});

/**
 * One invocation per query row and head. With p the softmax of a query's scores and δ_j = p_j (v_j·g − o·g), the gradient at the
 * query is Σ_j δ_j k_j, times the slope of the scores (arXiv 2205.14135, algorithm 4). Two keys at a time share what is loaded of the query.
 */
const queryKernel = (form: Form): Kernel => ({
  name: nameOf("queries", form),
  buffers: [
    ...read(form, "queries", "keys", "values"),
    { name: "spans", element: "u32", access: "read" },
    ...read(form, "gradient"),
    ...statistics,
    { name: "at_queries", element: form.element, access: "read_write" },
    ...(form.withBias ? biasTable : []),
  ],
  params,
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  ${LOCATE_QUERY}
  let known = statistics[i];
  let first_bias = i32(known.z);
  for (var j = 0u; j < key_count; j += 2u) {
    ${LOCATE_KEYS}
    var dots_x = ${form.element}();
    var dots_y = ${form.element}();
    var pulls_x = ${form.element}();
    var pulls_y = ${form.element}();
    for (var d = 0u; d < params.width; d++) {
      let query = queries[mine + d];
      let arriving = gradient[mine + d];
      dots_x = fma(query, keys[at.x + d], dots_x);
      dots_y = fma(query, keys[at.y + d], dots_y);
      pulls_x = fma(arriving, values[at.x + d], pulls_x);
      pulls_y = fma(arriving, values[at.y + d], pulls_y);
    }
    ${scoresOf(form, ["first_bias + i32(key.x)", "first_bias + i32(key.y)"], ["head", "head"])}
    let pulls = vec2f(${sumOf(form.element, "pulls_x")}, ${sumOf(form.element, "pulls_y")});
    var delta = exp(scores - known.x) * (pulls - known.y) * slopes;
    if (!both) { delta.y = 0.0; }
    for (var d = 0u; d < params.width; d++) {
      let so_far = fma(keys[at.x + d], ${form.element}(delta.x), at_queries[mine + d]);
      at_queries[mine + d] = fma(keys[at.y + d], ${form.element}(delta.y), so_far);
    }
  }
}`,
});

/**
 * One invocation per key row and key/value head: gathers from every query that sees the key, two at a time, so that nothing is added twice. Both
 * results go into one buffer, a row's keys before its values, because adapters need not offer more than eight; it is zero before.
 */
const keyKernel = (form: Form): Kernel => ({
  name: nameOf("keys", form),
  buffers: [
    ...read(form, "queries", "keys", "values"),
    { name: "viewers", element: "u32", access: "read" },
    ...read(form, "gradient"),
    ...statistics,
    { name: "result", element: form.element, access: "read_write" },
    ...(form.withBias ? biasTable : []),
  ],
  params,
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  let row = i / params.key_value_heads;
  let key_value_head = i - row * params.key_value_heads;
  let shared_by = params.query_heads / params.key_value_heads;
  let first_query = viewers[2u * row];
  let unit_count = viewers[2u * row + 1u] * shared_by;
  let mine = i * params.width;
  let at_key = (row * params.key_value_heads + i) * params.width;
  let at_value = at_key + params.key_value_heads * params.width;
  for (var j = 0u; j < unit_count; j += 2u) {
    let both = j + 1u < unit_count;
    let seen_by = vec2u(j, select(j, j + 1u, both));
    let head = key_value_head * shared_by + seen_by % shared_by;
    let unit = (first_query + seen_by / shared_by) * params.query_heads + head;
    let at = unit * params.width;
    var dots_x = ${form.element}();
    var dots_y = ${form.element}();
    var pulls_x = ${form.element}();
    var pulls_y = ${form.element}();
    for (var d = 0u; d < params.width; d++) {
      let key = keys[mine + d];
      let value = values[mine + d];
      dots_x = fma(queries[at.x + d], key, dots_x);
      dots_y = fma(queries[at.y + d], key, dots_y);
      pulls_x = fma(gradient[at.x + d], value, pulls_x);
      pulls_y = fma(gradient[at.y + d], value, pulls_y);
    }
    let known_x = statistics[unit.x];
    let known_y = statistics[unit.y];
    ${scoresOf(form, ["i32(known_x.z) + i32(row)", "i32(known_y.z) + i32(row)"], ["head.x", "head.y"])}
    var weight = exp(scores - vec2f(known_x.x, known_y.x));
    if (!both) { weight.y = 0.0; }
    let pulls = vec2f(${sumOf(form.element, "pulls_x")}, ${sumOf(form.element, "pulls_y")});
    let delta = weight * (pulls - vec2f(known_x.y, known_y.y)) * slopes;
    for (var d = 0u; d < params.width; d++) {
      let at_one = fma(queries[at.x + d], ${form.element}(delta.x), result[at_key + d]);
      result[at_key + d] = fma(queries[at.y + d], ${form.element}(delta.y), at_one);
      let value_at_one = fma(gradient[at.x + d], ${form.element}(weight.x), result[at_value + d]);
      result[at_value + d] = fma(gradient[at.y + d], ${form.element}(weight.y), value_at_one);
    }
  }
}`,
});

const kernelsOf = (form: Form) => ({
  statistics: statisticsKernel(form),
  queries: queryKernel(form),
  keys: keyKernel(form),
});
const formsOf = (element: HeadElement) => ({
  plain: kernelsOf({ element, withBias: false }),
  biased: kernelsOf({ element, withBias: true }),
});
const kernels = { f32: formsOf("f32"), vec4f: formsOf("vec4f") };

type Operands = readonly [
  queries: Tensor,
  keys: Tensor,
  values: Tensor,
  output: Tensor,
  gradient: Tensor,
  spans: Tensor,
  viewers: Tensor,
];

function check(
  [queries, keys, values, output, gradient, spans, viewers]: Operands,
  heads: AttentionHeads,
  bias: DistanceBias | undefined,
) {
  const where = "attention_backward";
  const [rows] = matrixShape(queries, where), [keyRows] = matrixShape(keys, where);
  requireShape(queries, [rows, heads.queryHeads * heads.headDim], "queries", where);
  requireShape(keys, [keyRows, heads.keyValueHeads * heads.headDim], "keys", where);
  requireShape(values, keys.shape, "values", where);
  requireShape(output, queries.shape, "output", where);
  requireShape(gradient, queries.shape, "gradient", where);
  requireShape(spans, [rows, 2], "spans", where);
  requireShape(viewers, [keyRows, 2], "viewers", where);
  if (bias) {
    requireShape(bias.table, [bias.table.shape[0]!, heads.queryHeads], "bias", where);
    requireShape(bias.origins, [rows], "origins", where);
  }
  return { rows, keyRows };
}

/** Queues one variant, whatever the device's class; the operation chooses between them. */
export function dispatchAttentionBackward(
  device: GpuDevice,
  element: HeadElement,
  operands: Operands,
  heads: AttentionHeads,
  bias: DistanceBias | undefined,
): AttentionGradients {
  const { rows, keyRows } = check(operands, heads, bias);
  const [queries, keys, values, output, gradient, spans, viewers] = operands;
  const { queryHeads, keyValueHeads, headDim, attentionSoftCap = 0 } = heads;
  const table = bias ? [bias.table] : [];
  const chosen = kernels[element][bias ? "biased" : "plain"];
  const run = (kernel: Kernel, count: number, tensors: readonly Tensor[]) =>
    device.dispatch(
      kernel,
      tensors,
      [count, queryHeads, keyValueHeads, scaleOf(heads), attentionSoftCap, headDim / NUMBERS_IN[element]],
      grid(count, LANES),
    );
  using statistics = device.empty([rows, queryHeads, 4]);
  run(chosen.statistics, rows * queryHeads, [
    queries,
    keys,
    spans,
    output,
    gradient,
    statistics,
    ...(bias ? [bias.table, bias.origins] : []),
  ]);
  const atQueries = device.zeros(queries.shape);
  run(chosen.queries, rows * queryHeads, [
    queries,
    keys,
    values,
    spans,
    gradient,
    statistics,
    atQueries,
    ...table,
  ]);
  const width = keyValueHeads * headDim;
  using both = device.zeros([keyRows, 2 * width]);
  run(chosen.keys, keyRows * keyValueHeads, [
    queries,
    keys,
    values,
    viewers,
    gradient,
    statistics,
    both,
    ...table,
  ]);
  return {
    queries: atQueries,
    keys: sliceColumns(both, 0, width),
    values: sliceColumns(both, width, 2 * width),
  };
}

/** Straight from the definition: the softmax of each query's scores, then the chain rule through it. */
function inFloat64(
  device: CpuDevice,
  operands: Operands,
  heads: AttentionHeads,
  bias: DistanceBias | undefined,
): AttentionGradients {
  const { rows } = check(operands, heads, bias);
  const [queries, keys, values, , gradient, spans] = operands as readonly Tensor[] as readonly CpuTensor[];
  const { queryHeads, keyValueHeads, headDim, attentionSoftCap: cap } = heads;
  const scale = scaleOf(heads);
  const result = {
    queries: device.zeros(queries!.shape),
    keys: device.zeros(keys!.shape),
    values: device.zeros(values!.shape),
  };
  const keyWidth = keyValueHeads * headDim;
  const run = (matrix: CpuTensor, at: number) => matrix.floats.subarray(at, at + headDim);
  const dot = (u: Float64Array, v: Float64Array) => u.reduce((sum, value, d) => sum + value * v[d]!, 0);
  for (let i = 0; i < rows * queryHeads; i++) {
    const row = Math.floor(i / queryHeads), head = i % queryHeads;
    const column = Math.floor(head * keyValueHeads / queryHeads) * headDim;
    const first = spans!.data[2 * row]!, count = spans!.data[2 * row + 1]!;
    const places = Array.from({ length: count }, (_, j) => (first + j) * keyWidth + column);
    const query = run(queries!, i * headDim), at = run(gradient!, i * headDim);
    const atQuery = run(result.queries, i * headDim);
    const scaled = places.map((place) => dot(query, run(keys!, place)) * scale);
    const scores = scaled.map((score, j) =>
      (cap ? cap * Math.tanh(score / cap) : score) + biasOf(bias, row, j, head, queryHeads)
    );
    const highest = scores.reduce((above, score) => Math.max(above, score));
    const raised = scores.map((score) => Math.exp(score - highest));
    const total = raised.reduce((sum, value) => sum + value, 0);
    const pulls = places.map((place) => dot(at, run(values!, place)));
    const along = pulls.reduce((sum, pull, j) => sum + pull * raised[j]! / total, 0);
    places.forEach((place, j) => {
      const weight = raised[j]! / total;
      const slope = scale * (cap ? 1 - Math.tanh(scaled[j]! / cap) ** 2 : 1);
      const delta = weight * (pulls[j]! - along) * slope;
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
 * Gradients at the inputs of `attention` from the one at its output, both `[rows, queryHeads·headDim]`. Biases by distance are constants.
 *
 * @param spans as `attention` takes them
 * @param viewers u32 `[keyRows, 2]`: of each key row, the first query row that sees it and how many do; the spans seen the other way
 * @param bias as `attention` took it
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
  bias?: DistanceBias,
) => AttentionGradients = defineOperation<
  [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, AttentionHeads, DistanceBias?],
  AttentionGradients
>({
  name: "attention_backward",
  kernels: Object.values(kernels).flatMap(({ plain, biased }) => [
    ...Object.values(plain),
    ...Object.values(biased),
  ]),
  gpu: (device, queries, keys, values, output, gradient, spans, viewers, heads, bias) =>
    dispatchAttentionBackward(
      device,
      elementOf(device),
      [queries, keys, values, output, gradient, spans, viewers],
      heads,
      bias,
    ),
  cpu: (device, queries, keys, values, output, gradient, spans, viewers, heads, bias) =>
    inFloat64(device, [queries, keys, values, output, gradient, spans, viewers], heads, bias),
});
