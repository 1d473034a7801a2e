/** WGSL that computes the gradients of attention: what all forms share, and those for hardware. */
import type { Kernel } from "@lora-loom/tensor";
import { FOR_EACH_ELEMENT } from "./grid.ts";
import { type HeadElement, sumOf } from "./head_elements.ts";

/** One of the forms in which a kernel exists. */
interface Form {
  readonly element: HeadElement;
  readonly withBias: boolean;
}

export function nameOf(kernel: string, { element, withBias }: Form): string {
  return `attention_backward_${kernel}${withBias ? "_biased" : ""}_by_${element}`;
}

/** Parameters of all kernels. */
export const backwardParams: Kernel["params"] = [
  ["count", "u32"],
  ["query_heads", "u32"],
  ["key_value_heads", "u32"],
  ["scale", "f32"],
  ["soft_cap", "f32"],
  // Elements of a head.
  ["width", "u32"],
];

const read = (element: HeadElement, ...names: readonly string[]): Kernel["buffers"] =>
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
export const LOCATE_KEYS = /* wgsl */ `
    let both = j + 1u < key_count;
    let key = first_key + vec2u(j, select(j, j + 1u, both));
    let at = (key * params.key_value_heads + key_value_head) * params.width;`;

/** WGSL: from the unit of work `i` to its query row and what that sees. */
export const LOCATE_QUERY = /* wgsl */ `
  let row = i / params.query_heads;
  let head = i - row * params.query_heads;
  let key_value_head = head / (params.query_heads / params.key_value_heads);
  let sees = ranges[row];
  let first_key = sees[0];
  let key_count = sees[1];
  let mine = i * params.width;`;

/** WGSL: from the unit of work `i` to its key row and what sees that: units of a query row and a head. */
export const LOCATE_KEY = /* wgsl */ `
  let row = i / params.key_value_heads;
  let key_value_head = i - row * params.key_value_heads;
  let shared_by = params.query_heads / params.key_value_heads;
  let seen_by = ranges[row];
  let first_query = seen_by[0];
  let unit_count = seen_by[1] * shared_by;
  let mine = i * params.width;`;

/** WGSL: where the units `j` and j + 1 that see a key begin; the last once more where there is no other. */
export const LOCATE_UNITS = /* wgsl */ `
    let both = j + 1u < unit_count;
    let order = vec2u(j, select(j, j + 1u, both));
    let query = order / shared_by;
    let head = key_value_head * shared_by + order - query * shared_by;
    let unit = (first_query + query) * params.query_heads + head;
    let at = unit * params.width;`;

/**
 * One invocation per query row and head: what the other kernels need of a softmax, which is the logarithm of its sum and o·g, of the
 * attention's output and the gradient there. The third number leads from key rows to rows of the bias table; it is exact below 2²⁴.
 */
export const statisticsKernel = (form: Form): Kernel => ({
  name: nameOf("statistics", form),
  buffers: [
    ...read(form.element, "queries", "keys"),
    { name: "ranges", element: "vec2u", access: "read" },
    ...read(form.element, "output", "gradient"),
    { name: "statistics", element: "vec4f", access: "read_write" },
    ...(form.withBias ? [...biasTable, { name: "origins", element: "u32", access: "read" } as const] : []),
  ],
  params: backwardParams,
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
export const queriesByQuads = (withBias: boolean): Kernel => ({
  name: nameOf("queries", { element: "vec4f", withBias }),
  buffers: [
    ...read("vec4f", "queries", "keys", "values"),
    { name: "ranges", element: "vec2u", access: "read" },
    ...read("vec4f", "gradient"),
    ...statistics,
    { name: "at_queries", element: "vec4f", access: "read_write" },
    ...(withBias ? biasTable : []),
  ],
  params: backwardParams,
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  ${LOCATE_QUERY}
  let known = statistics[i];
  let first_bias = i32(known.z);
  for (var j = 0u; j < key_count; j += 2u) {
    ${LOCATE_KEYS}
    var dots_x = vec4f();
    var dots_y = vec4f();
    var pulls_x = vec4f();
    var pulls_y = vec4f();
    for (var d = 0u; d < params.width; d++) {
      let query = queries[mine + d];
      let arriving = gradient[mine + d];
      dots_x = fma(query, keys[at.x + d], dots_x);
      dots_y = fma(query, keys[at.y + d], dots_y);
      pulls_x = fma(arriving, values[at.x + d], pulls_x);
      pulls_y = fma(arriving, values[at.y + d], pulls_y);
    }
    ${
    scoresOf({ element: "vec4f", withBias }, ["first_bias + i32(key.x)", "first_bias + i32(key.y)"], [
      "head",
      "head",
    ])
  }
    let pulls = vec2f(${sumOf("vec4f", "pulls_x")}, ${sumOf("vec4f", "pulls_y")});
    var delta = exp(scores - known.x) * (pulls - known.y) * slopes;
    if (!both) { delta.y = 0.0; }
    for (var d = 0u; d < params.width; d++) {
      let so_far = fma(keys[at.x + d], vec4f(delta.x), at_queries[mine + d]);
      at_queries[mine + d] = fma(keys[at.y + d], vec4f(delta.y), so_far);
    }
  }
}`,
});

/**
 * One invocation per key row and key/value head: gathers from every query that sees the key, two at a time, so that nothing is added twice. Both
 * results go into one buffer, a row's keys before its values, because adapters need not offer more than eight; it is zero before.
 */
export const keysByQuads = (withBias: boolean): Kernel => ({
  name: nameOf("keys", { element: "vec4f", withBias }),
  buffers: [
    ...read("vec4f", "queries", "keys", "values"),
    { name: "ranges", element: "vec2u", access: "read" },
    ...read("vec4f", "gradient"),
    ...statistics,
    { name: "result", element: "vec4f", access: "read_write" },
    ...(withBias ? biasTable : []),
  ],
  params: backwardParams,
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  ${LOCATE_KEY}
  let at_key = (row * params.key_value_heads + i) * params.width;
  let at_value = at_key + params.key_value_heads * params.width;
  for (var j = 0u; j < unit_count; j += 2u) {
    ${LOCATE_UNITS}
    var dots_x = vec4f();
    var dots_y = vec4f();
    var pulls_x = vec4f();
    var pulls_y = vec4f();
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
    ${
    scoresOf({ element: "vec4f", withBias }, ["i32(known_x.z) + i32(row)", "i32(known_y.z) + i32(row)"], [
      "head.x",
      "head.y",
    ])
  }
    var weight = exp(scores - vec2f(known_x.x, known_y.x));
    if (!both) { weight.y = 0.0; }
    let pulls = vec2f(${sumOf("vec4f", "pulls_x")}, ${sumOf("vec4f", "pulls_y")});
    let delta = weight * (pulls - vec2f(known_x.y, known_y.y)) * slopes;
    for (var d = 0u; d < params.width; d++) {
      let at_one = fma(queries[at.x + d], vec4f(delta.x), result[at_key + d]);
      result[at_key + d] = fma(queries[at.y + d], vec4f(delta.y), at_one);
      let value_at_one = fma(gradient[at.x + d], vec4f(weight.x), result[at_value + d]);
      result[at_value + d] = fma(gradient[at.y + d], vec4f(weight.y), value_at_one);
    }
  }
}`,
});
