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
 * What both kernels bind: of the rows that they work on, `own`, and of those that see them or that they see, `others`, pairs of what the scores are
 * made of and of what the output is made of or its gradient. Of the statistics not the number that is not used: vectors of three lie as far
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

/** WGSL, of what differs between the kernels. */
interface Parts {
  /** Of the pair of rows `one` of two, the query's statistics, the row of keys and the query head. */
  readonly known: string;
  readonly keyRow: string;
  readonly head: string;
  /** What the element `d` of the result grows by, of `firsts` and `seconds`, the two others' pairs, and of `deltas` and `weights`. */
  readonly growth: string;
}

/**
 * WGSL: one's own row `mine` with the rows `at` of two others, or of the first alone where there are not `both`: their `weights` in the softmax and
 * `deltas`, the gradients at the unscaled products, and what follows from them for one's own row.
 */
function compareWithTwo(withBias: boolean, { known, keyRow, head, growth }: Parts): string {
  return /* wgsl */ `
    // Not by min(), from which the driver would know that it can write the loop out.
    let here = select(1u, 2u, both);
    var dots = vec2f();
    var pulls = vec2f();
    var weights = vec2f();
    var deltas = vec2f();
    // Twice, for the products and then for what follows: in one place, because both load the same.
    for (var weighed = false; ; weighed = true) {
      for (var d = 0u; d < params.width; d++) {
        let x = others[at.x + d];
        let y = others[at.y + d];
        let firsts = vec2f(x[0], y[0]);
        let seconds = vec2f(x[1], y[1]);
        if (weighed) {
          result[mine + d] += ${growth};
        } else {
          let pair = own[mine + d];
          dots = fma(vec2f(pair[0]), firsts, dots);
          pulls = fma(vec2f(pair[1]), seconds, pulls);
        }
      }
      if (weighed) { break; }
      for (var one = 0u; one < here; one++) {
        let known = ${known};
        let capped = params.soft_cap > 0.0;
        var score = dots[one] * params.scale;
        let bent = tanh(clamp(score / params.soft_cap, -20.0, 20.0));
        score = select(score, params.soft_cap * bent, capped);
        let slope = params.scale * select(1.0, 1.0 - bent * bent, capped);
        ${withBias ? `score += bias[u32(i32(known.z) + i32(${keyRow})) * params.query_heads + ${head}];` : ""}
        weights[one] = exp(score - known.x);
        deltas[one] = weights[one] * (pulls[one] - known.y) * slope;
      }
    }`;
}

/** One invocation per query row and head, as `attention_backward_queries_by_vec4f`. */
export const queriesInPairs = (withBias: boolean): Kernel => ({
  name: nameOf("queries", { element: "f32", withBias }),
  buffers: buffers("f32", withBias),
  params: backwardParams,
  code: /* wgsl */ `${FOR_EACH_ELEMENT}
  ${LOCATE_QUERY}
  let statistics_of_row = statistics[i];
  for (var j = 0u; j < key_count; j += 2u) {
    ${LOCATE_KEYS}
    ${
    compareWithTwo(withBias, {
      known: "statistics_of_row",
      keyRow: "key[one]",
      head: "head",
      growth: "dot(firsts, deltas)",
    })
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
    ${
    compareWithTwo(withBias, {
      known: "statistics[unit[one]]",
      keyRow: "row",
      head: "head[one]",
      growth: "vec2f(dot(firsts, deltas), dot(seconds, weights))",
    })
  }
  }
}`,
});
