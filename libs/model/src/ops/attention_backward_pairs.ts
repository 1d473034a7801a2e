/**
 * The gradients of attention on drivers that run invocations as SIMD lanes of a CPU. Such a driver loads and stores lane by lane, with a
 * bounds check and a jump each, and takes 8 ms of the processor to compile that, once more for every place in the code. So what is read
 * together lies together here, in pairs of numbers, and what would be written twice is a loop.
 */
import {
  concatColumns,
  type Kernel,
  matrixShape,
  reshape,
  sliceColumns,
  type Tensor,
} from "@lora-loom/tensor";
import { backwardParams, LOCATE_KEYS, LOCATE_QUERY, nameOf } from "./attention_backward_kernels.ts";
import { FOR_EACH_ELEMENT } from "./grid.ts";

/** The numbers of two matrices of one shape in turn: `[elements, 2]`. */
export function inPairs(first: Tensor, second: Tensor): Tensor {
  const [rows, columns] = matrixShape(first, "attention_backward");
  using left = reshape(first, [rows * columns, 1]), right = reshape(second, [rows * columns, 1]);
  return concatColumns([left, right]);
}

/** One side of pairs `[elements, 2]`, in the shape of the matrix that it is. */
export function sideOf(pairs: Tensor, side: 0 | 1, shape: readonly number[]): Tensor {
  using column = sliceColumns(pairs, side, side + 1);
  return reshape(column, shape);
}

const QUERIES_AND_GRADIENT: Kernel["buffers"] = [
  { name: "queries_and_gradient", element: "vec2f", access: "read" },
];
const KEYS_AND_VALUES: Kernel["buffers"] = [{ name: "keys_and_values", element: "vec2f", access: "read" }];
/** Without the number that is not used: vectors of three lie as far apart as those of four. */
const STATISTICS: Kernel["buffers"] = [{ name: "statistics", element: "vec3f", access: "read" }];
const biasTable = (withBias: boolean): Kernel["buffers"] =>
  withBias ? [{ name: "bias", element: "f32", access: "read" }] : [];

/**
 * WGSL: fills `weights`, of the softmax, and `deltas`, the gradients at the unscaled products, for those of two pairs of a query and a key
 * that there are, `here`; were that a min(), the driver would know to write the loop out. Their products are in `dots`, those of the gradient and the value in `pulls`; the expressions are for the pair `one`.
 */
function weigh(
  withBias: boolean,
  { statistics, biasRow, head }: {
    readonly statistics: string;
    readonly biasRow: string;
    readonly head: string;
  },
): string {
  return /* wgsl */ `
    for (var one = 0u; one < here; one++) {
      let known = ${statistics};
      let capped = params.soft_cap > 0.0;
      var score = dots[one] * params.scale;
      let bent = tanh(clamp(score / params.soft_cap, -20.0, 20.0));
      score = select(score, params.soft_cap * bent, capped);
      let slope = params.scale * select(1.0, 1.0 - bent * bent, capped);
      ${withBias ? `score += bias[u32(i32(known.z) + i32(${biasRow})) * params.query_heads + ${head}];` : ""}
      weights[one] = exp(score - known.x);
      deltas[one] = weights[one] * (pulls[one] - known.y) * slope;
    }`;
}

/** One invocation per query row and head, as `attention_backward_queries_by_vec4f`. */
export const queriesInPairs = (withBias: boolean): Kernel => ({
  name: nameOf("queries", { element: "f32", withBias }),
  buffers: [
    ...QUERIES_AND_GRADIENT,
    ...KEYS_AND_VALUES,
    { name: "keys", element: "f32", access: "read" },
    { name: "spans", element: "vec2u", access: "read" },
    ...STATISTICS,
    { name: "at_queries", element: "f32", access: "read_write" },
    ...biasTable(withBias),
  ],
  params: backwardParams,
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  ${LOCATE_QUERY}
  for (var j = 0u; j < key_count; j += 2u) {
    ${LOCATE_KEYS}
    let here = select(1u, 2u, both);
    var dots = vec2f();
    var pulls = vec2f();
    for (var d = 0u; d < params.width; d++) {
      let own = queries_and_gradient[mine + d];
      let x = keys_and_values[at.x + d];
      let y = keys_and_values[at.y + d];
      dots = fma(vec2f(own[0]), vec2f(x[0], y[0]), dots);
      pulls = fma(vec2f(own[1]), vec2f(x[1], y[1]), pulls);
    }
    var weights = vec2f();
    var deltas = vec2f();
    ${weigh(withBias, { statistics: "statistics[i]", biasRow: "key[one]", head: "head" })}
    for (var d = 0u; d < params.width; d++) {
      at_queries[mine + d] += dot(vec2f(keys[at.x + d], keys[at.y + d]), deltas);
    }
  }
}`,
});

/** One invocation per key row and key/value head, as `attention_backward_keys_by_vec4f`, but for the order of the result: pairs too. */
export const keysInPairs = (withBias: boolean): Kernel => ({
  name: nameOf("keys", { element: "f32", withBias }),
  buffers: [
    ...QUERIES_AND_GRADIENT,
    ...KEYS_AND_VALUES,
    { name: "viewers", element: "vec2u", access: "read" },
    ...STATISTICS,
    { name: "result", element: "vec2f", access: "read_write" },
    ...biasTable(withBias),
  ],
  params: backwardParams,
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  let row = i / params.key_value_heads;
  let key_value_head = i - row * params.key_value_heads;
  let shared_by = params.query_heads / params.key_value_heads;
  let seen_by = viewers[row];
  let unit_count = seen_by[1] * shared_by;
  let mine = i * params.width;
  for (var j = 0u; j < unit_count; j += 2u) {
    let both = j + 1u < unit_count;
    let here = select(1u, 2u, both);
    let order = vec2u(j, j + here - 1u);
    let query = order / shared_by;
    let head = key_value_head * shared_by + order - query * shared_by;
    let unit = (seen_by[0] + query) * params.query_heads + head;
    let at = unit * params.width;
    var dots = vec2f();
    var pulls = vec2f();
    var weights = vec2f();
    var deltas = vec2f();
    // Twice: for the products, then for the sums. In one place, because both load the same.
    for (var weighed = false; ; weighed = true) {
      for (var d = 0u; d < params.width; d++) {
        let x = queries_and_gradient[at.x + d];
        let y = queries_and_gradient[at.y + d];
        let queries = vec2f(x[0], y[0]);
        let arriving = vec2f(x[1], y[1]);
        if (weighed) {
          result[mine + d] += vec2f(dot(queries, deltas), dot(arriving, weights));
        } else {
          let own = keys_and_values[mine + d];
          dots = fma(queries, vec2f(own[0]), dots);
          pulls = fma(arriving, vec2f(own[1]), pulls);
        }
      }
      if (weighed) { break; }
      ${weigh(withBias, { statistics: "statistics[unit[one]]", biasRow: "row", head: "head[one]" })}
    }
  }
}`,
});
