import type { Device } from "@lora-loom/tensor";
import { noiseOf } from "../datafree/core_method.ts";
import { CoreSpace } from "../datafree/core_space.ts";
import {
  columnRange,
  decompose,
  diagonal,
  leading,
  type Matrix,
  multiply,
  norm,
  sideBySide,
} from "../datafree/matrix.ts";
import { MERGE_PARAMETERS, mergeEntries, type WeightedMatrix } from "../datafree/merge_entries.ts";
import { rankLimit } from "../plan/rank_policy.ts";
import { checkPooledRank } from "./lego_parameters.ts";
import type { MergedFactors, ModuleMethod } from "./method.ts";
import { pooledRank, rankParameter } from "./truncate.ts";

/** The parts V_t of the joint right factor in input coordinates, κ × in each. */
async function rightParts(space: CoreSpace, right: Matrix): Promise<WeightedMatrix[]> {
  const device = space.right.device;
  const [width, inFeatures] = space.right.shape as [number, number];
  return await Promise.all(space.sources.map(async ({ weight, adapter }, t) => {
    using part = space.fromRight(columnRange(right, t * width, (t + 1) * width));
    const data = Float64Array.from(await device.download(part));
    return { weight, adapter, matrix: { rows: right.rows, columns: inFeatures, data } };
  }));
}

function emptyResult(device: Device, space: CoreSpace): MergedFactors {
  return { a: device.zeros([1, space.right.shape[1]!]), b: device.zeros([space.left.shape[1]!, 1]) };
}

export const knots: ModuleMethod = {
  kind: "module",
  name: "knots",
  title: "KnOTS",
  summary:
    "Expresses all adapters in one set of output directions, which aligns them, and merges what belongs to each " +
    "direction entry by entry.",
  formula: "[ΔW_1 … ΔW_T] = U diag(σ) [V_1ᵀ … V_Tᵀ]; ΔW' = U diag(σ) merge(V_1ᵀ, …, V_Tᵀ)",
  source: "Stoica et al., Model merging with SVD to tie the Knots (arXiv 2410.19735)",
  parameters: [...MERGE_PARAMETERS, { ...rankParameter, defaultText: "Σ r_t: nothing is cut" }],
  needs: { baseModel: false, calibration: false },
  outputRank: (ranks, { rank }) => Math.min(rankLimit(rank) ?? Infinity, pooledRank(ranks)),
  check: (plan, parameters) => checkPooledRank("knots", plan, parameters),
  async merge(sources, context) {
    const { device } = context;
    using space = await CoreSpace.open(sources);
    const noise = noiseOf(device);
    const joint = decompose(sideBySide(space.sources.map(({ core }) => core)), noise);
    if (joint.sigma.length === 0) return emptyResult(device, space);
    const merged = mergeEntries(await rightParts(space, joint.right), context);
    // U and the right singular vectors below make the singular value decomposition of the result.
    const all = decompose(multiply(diagonal(joint.sigma), merged), noise);
    if (all.sigma.length === 0) return emptyResult(device, space);
    const kept = leading(all, context.rank);
    const roots = diagonal(kept.sigma.map(Math.sqrt));
    const a = multiply(roots, kept.right);
    const lost = Math.sqrt(all.sigma.slice(kept.sigma.length).reduce((sum, sigma) => sum + sigma ** 2, 0));
    return {
      a: device.upload(a.data, [a.rows, a.columns]),
      b: space.fromLeft(multiply(multiply(joint.left, kept.left), roots)),
      figures: {
        spectrum: [...all.sigma],
        rank_loss: lost / norm({ rows: 1, columns: all.sigma.length, data: all.sigma }),
      },
    };
  },
};
