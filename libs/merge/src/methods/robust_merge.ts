import { DENSITY } from "../datafree/common_parameters.ts";
import { matrixEntries } from "../datafree/entries.ts";
import { downloadFactors, type WeightedHostFactors } from "../datafree/host_factors.ts";
import { keepLargest } from "../datafree/sparsify.ts";
import { checkEqualRanks } from "../datafree/equal_ranks.ts";
import type { ModuleMethod } from "./method.ts";
import type { BooleanParameter, NumberParameter } from "./parameters.ts";

const SCALING: NumberParameter = {
  name: "scaling",
  type: "number",
  minimum: 0,
  exclusiveMinimum: true,
  default: 2,
  help: "factor of the result (λ)",
};

const CROSS_TERMS: BooleanParameter = {
  name: "cross_terms",
  type: "boolean",
  default: true,
  help: "as published, add up A and B apart; false multiplies each adapter's own pair first, at rank Σ r_t",
};

/** Pruned factors with w s folded into b, and the ratio by which pruning shortened each row of A. */
interface Pruned {
  readonly a: Float64Array;
  readonly b: Float64Array;
  readonly ratios: Float64Array;
}

function pruned(matrix: Float64Array, rows: number, columns: number, density: number): Float64Array {
  const out = matrix.slice();
  keepLargest(matrixEntries(matrix, rows, columns), density).apply(out, 0);
  return out;
}

function absoluteSum(values: Float64Array): number {
  return values.reduce((sum, value) => sum + Math.abs(value), 0);
}

function prune(
  { a, b, rank, inFeatures, outFeatures, weight, scale }: WeightedHostFactors,
  density: number,
): Pruned {
  const keptA = pruned(a, rank, inFeatures, density);
  const ratios = Float64Array.from({ length: rank }, (_, i) => {
    const [from, to] = [i * inFeatures, (i + 1) * inFeatures];
    const left = absoluteSum(keptA.subarray(from, to));
    // A row that pruning emptied contributes nothing, whatever its factor.
    return left === 0 ? 0 : absoluteSum(a.subarray(from, to)) / left;
  });
  const keptB = pruned(b, outFeatures, rank, density).map((value) => weight * scale * value);
  return { a: keptA, b: keptB, ratios };
}

/** S_{t,i} / Σ_t S_{t,i}. */
function normalised(parts: readonly Pruned[]): Float64Array[] {
  return parts.map(({ ratios }) =>
    ratios.map((ratio, i) => {
      const total = parts.reduce((sum, part) => sum + part.ratios[i]!, 0);
      return total === 0 ? 0 : ratio / total;
    })
  );
}

function sum(matrices: readonly Float64Array[]): Float64Array<ArrayBuffer> {
  return Float64Array.from(matrices[0]!, (_, i) => matrices.reduce((total, matrix) => total + matrix[i]!, 0));
}

/** [X_1 X_2 …] of matrices `[rows, rank]`. */
function beside(matrices: readonly Float64Array[], rows: number, rank: number): Float64Array<ArrayBuffer> {
  const width = rank * matrices.length;
  const out = new Float64Array(rows * width);
  matrices.forEach((matrix, t) => {
    for (let i = 0; i < rows; i++) out.set(matrix.subarray(i * rank, (i + 1) * rank), i * width + t * rank);
  });
  return out;
}

export const robustMerge: ModuleMethod = {
  kind: "module",
  name: "robust_merge",
  title: "RobustMerge",
  summary:
    "Prunes small entries of A and B and strengthens the ranks that lost most, so that weak directions keep their share. " +
    "Adds A and B apart, as published, so it needs equal ranks and depends on how the ranks are ordered.",
  formula:
    "Ã_t, B̃_t: largest entries of A_t, w_t s_t B_t; S_{t,i} = (‖A_{t,i}‖₁/‖Ã_{t,i}‖₁) / Σ_u (‖A_{u,i}‖₁/‖Ã_{u,i}‖₁); " +
    "ΔW' = λ (Σ B̃_t diag(S_t)) (Σ Ã_t)",
  source: "Zeng et al., RobustMerge (arXiv 2502.17159)",
  parameters: [DENSITY, SCALING, CROSS_TERMS],
  needs: { baseModel: false, calibration: false },
  outputRank: (ranks, { cross_terms }) => cross_terms ? ranks[0]! : ranks[0]! * ranks.length,
  check: ({ modules }) => checkEqualRanks("robust_merge", modules),
  async merge(sources, { device, parameters }) {
    const factors = await downloadFactors(device, sources);
    const { rank, inFeatures, outFeatures } = factors[0]!;
    const parts = factors.map((source) => prune(source, parameters.density as number));
    const shares = normalised(parts);
    const lambda = parameters.scaling as number;
    const outputs = parts.map(({ b }, t) =>
      b.map((value, index) => lambda * shares[t]![index % rank]! * value)
    );
    const inputs = parts.map(({ a }) => a);
    if (parameters.cross_terms) {
      return {
        a: device.upload(sum(inputs), [rank, inFeatures]),
        b: device.upload(sum(outputs), [outFeatures, rank]),
      };
    }
    const pooled = rank * parts.length;
    return {
      a: device.upload(Float64Array.from(inputs.flatMap((a) => [...a])), [pooled, inFeatures]),
      b: device.upload(beside(outputs, outFeatures, rank), [outFeatures, pooled]),
    };
  },
};
