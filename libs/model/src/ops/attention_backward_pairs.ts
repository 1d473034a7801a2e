/**
 * The gradients of attention on drivers that run invocations as SIMD lanes of a CPU. Such a driver loads and stores lane by lane, with a
 * bounds check and a jump each, and takes 8 ms of the processor to compile that, once more for every place in the code. So what is read
 * together lies together here, in pairs of numbers, and what would be written twice is a loop.
 */
import { type Kernel, reshape, sliceColumns, type Tensor } from "@lora-loom/tensor";
import {
  backwardParams,
  LOCATE_KEY,
  LOCATE_KEYS,
  LOCATE_QUERY,
  LOCATE_UNITS,
  nameOf,
} from "./attention_backward_kernels.ts";
import { FOR_EACH_ELEMENT } from "./grid.ts";

/** One invocation per row and head, with a loop over the head: an invocation per number takes four times as long. */
export const IN_PAIRS: Kernel = {
  name: "attention_backward_pairs_by_f32",
  buffers: [
    { name: "first", element: "f32", access: "read" },
    { name: "second", element: "f32", access: "read" },
    { name: "pairs", element: "vec2f", access: "read_write" },
  ],
  params: backwardParams,
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  for (var at = i * params.width; at < (i + 1u) * params.width; at++) { pairs[at] = vec2f(first[at], second[at]); }
}`,
};

/** One side of pairs `[elements, 2]`, in the shape of the matrix that it is. */
export function sideOf(pairs: Tensor, side: 0 | 1, shape: readonly number[]): Tensor {
  using column = sliceColumns(pairs, side, side + 1);
  return reshape(column, shape);
}

/**
 * What both kernels bind: `own`, pairs of the rows that they work on, and `others`, those of the rows that these see or are seen by. A pair is
 * of a query and the gradient, or of a key and the value. Of the statistics not the number that is not used: vectors of three lie as far
 * apart as those of four.
 */
const buffers = (result: "f32" | "vec2f", withBias: boolean): Kernel["buffers"] => [
  { name: "own", element: "vec2f", access: "read" },
  { name: "others", element: "vec2f", access: "read" },
  { name: "ranges", element: "vec2u", access: "read" },
  { name: "statistics", element: "vec3f", access: "read" },
  { name: "result", element: result, access: "read_write" },
  ...(withBias ? [{ name: "bias", element: "f32", access: "read" } as const] : []),
];

/** WGSL: the pairs of two other rows, those `at` one's own, taken apart. */
const LOAD_OTHERS = /* wgsl */ `
        let x = others[at.x + d];
        let y = others[at.y + d];
        let firsts = vec2f(x[0], y[0]);
        let seconds = vec2f(x[1], y[1]);`;

/** WGSL: products of queries and keys in `dots`, of values and gradients in `pulls`. */
const MULTIPLY = /* wgsl */ `
          let pair = own[mine + d];
          dots = fma(vec2f(pair[0]), firsts, dots);
          pulls = fma(vec2f(pair[1]), seconds, pulls);`;

/**
 * WGSL: from the products the `weights` in the softmax and `deltas`, the gradients at the unscaled products. The second of two rows is left out
 * where there are not `both`. The expressions are, for the row `one` of two, a query's statistics, the row of keys and the query head.
 */
function weigh(
  withBias: boolean,
  { known, keyRow, head }: { readonly known: string; readonly keyRow: string; readonly head: string },
): string {
  return /* wgsl */ `
    // Not by min(), from which the driver would know that it can write the loop out.
    let here = select(1u, 2u, both);
    for (var one = 0u; one < here; one++) {
      let known = ${known};
      let capped = params.soft_cap > 0.0;
      var score = dots[one] * params.scale;
      // The hyperbolic tangent from one exponential, where the driver would compile two.
      let bent = 1.0 - 2.0 / (1.0 + exp(2.0 * clamp(score / params.soft_cap, -20.0, 20.0)));
      score = select(score, params.soft_cap * bent, capped);
      let slope = params.scale * select(1.0, 1.0 - bent * bent, capped);
      ${withBias ? `score += bias[u32(i32(known.z) + i32(${keyRow})) * params.query_heads + ${head}];` : ""}
      weights[one] = exp(score - known.x);
      deltas[one] = weights[one] * (pulls[one] - known.y) * slope;
    }`;
}

/** One invocation per query row and head, as `attention_backward_queries_by_vec4f`. */
export const queriesInPairs = (withBias: boolean): Kernel => ({
  name: nameOf("queries", { element: "f32", withBias }),
  buffers: [...buffers("f32", withBias), { name: "keys", element: "f32", access: "read" }],
  params: backwardParams,
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  ${LOCATE_QUERY}
  let own_statistics = statistics[i];
  for (var j = 0u; j < key_count; j += 2u) {
    ${LOCATE_KEYS}
    var dots = vec2f();
    var pulls = vec2f();
    var weights = vec2f();
    var deltas = vec2f();
    for (var d = 0u; d < params.width; d++) {
      ${LOAD_OTHERS}
      ${MULTIPLY}
    }
    ${weigh(withBias, { known: "own_statistics", keyRow: "key[one]", head: "head" })}
    for (var d = 0u; d < params.width; d++) {
      result[mine + d] += dot(vec2f(keys[at.x + d], keys[at.y + d]), deltas);
    }
  }
}`,
});

/** One invocation per key row and key/value head, as `attention_backward_keys_by_vec4f`, but for the order of the result: pairs too. */
export const keysInPairs = (withBias: boolean): Kernel => ({
  name: nameOf("keys", { element: "f32", withBias }),
  buffers: buffers("vec2f", withBias),
  params: backwardParams,
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  ${LOCATE_KEY}
  for (var j = 0u; j < unit_count; j += 2u) {
    ${LOCATE_UNITS}
    var dots = vec2f();
    var pulls = vec2f();
    var weights = vec2f();
    var deltas = vec2f();
    // Twice, for the products and for what follows from them: in one place, because both load the same.
    for (var weighed = false; ; weighed = true) {
      for (var d = 0u; d < params.width; d++) {
        ${LOAD_OTHERS}
        if (weighed) {
          result[mine + d] += vec2f(dot(firsts, deltas), dot(seconds, weights));
        } else {
          ${MULTIPLY}
        }
      }
      if (weighed) { break; }
      ${weigh(withBias, { known: "statistics[unit[one]]", keyRow: "row", head: "head[one]" })}
    }
  }
}`,
});
