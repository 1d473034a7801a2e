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
import { keysByQuads, queriesByQuads, statisticsKernel } from "./attention_backward_kernels.ts";
import { IN_PAIRS, keysInPairs, queriesInPairs, sideOf } from "./attention_backward_pairs.ts";
import { grid, LANES } from "./grid.ts";
import { elementOf, type HeadElement, NUMBERS_IN } from "./head_elements.ts";

/** Gradients at the inputs of `attention`, in their shapes. */
export interface AttentionGradients {
  readonly queries: Tensor;
  readonly keys: Tensor;
  readonly values: Tensor;
}

const kernelsOf = (withBias: boolean) => ({
  f32: {
    statistics: statisticsKernel({ element: "f32", withBias }),
    queries: queriesInPairs(withBias),
    keys: keysInPairs(withBias),
  },
  vec4f: {
    statistics: statisticsKernel({ element: "vec4f", withBias }),
    queries: queriesByQuads(withBias),
    keys: keysByQuads(withBias),
  },
});
const kernels = { plain: kernelsOf(false), biased: kernelsOf(true) };

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
  const chosen = kernels[bias ? "biased" : "plain"][element];
  const run = (kernel: Kernel, count: number, tensors: readonly Tensor[]) =>
    device.dispatch(
      kernel,
      tensors,
      [
        count,
        queryHeads,
        keyValueHeads,
        scaleOf(heads),
        attentionSoftCap,
        headDim / NUMBERS_IN[element],
      ],
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
  if (element === "f32") {
    using asking = device.empty([rows * queryHeads * headDim, 2]);
    run(IN_PAIRS, rows * queryHeads, [queries, gradient, asking]);
    using seen = device.empty([keyRows * keyValueHeads * headDim, 2]);
    run(IN_PAIRS, keyRows * keyValueHeads, [keys, values, seen]);
    using result = device.zeros(seen.shape);
    run(chosen.queries, rows * queryHeads, [asking, seen, spans, statistics, atQueries, ...table, keys]);
    run(chosen.keys, keyRows * keyValueHeads, [seen, asking, viewers, statistics, result, ...table]);
    return { queries: atQueries, keys: sideOf(result, 0, keys.shape), values: sideOf(result, 1, keys.shape) };
  }
  const width = keyValueHeads * headDim;
  using result = device.zeros([keyRows, 2 * width]);
  const all = [queries, keys, values];
  run(chosen.queries, rows * queryHeads, [...all, spans, gradient, statistics, atQueries, ...table]);
  run(chosen.keys, keyRows * keyValueHeads, [...all, viewers, gradient, statistics, result, ...table]);
  return {
    queries: atQueries,
    keys: sliceColumns(result, 0, width),
    values: sliceColumns(result, width, 2 * width),
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
  kernels: [
    IN_PAIRS,
    ...Object.values(kernels).flatMap((
      { f32, vec4f },
    ) => [...Object.values(f32), ...Object.values(vec4f)]),
  ],
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
