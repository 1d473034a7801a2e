import type { Device } from "@lora-loom/tensor";
import { checkPooledRank } from "../methods/lego_parameters.ts";
import type {
  MergedFactors,
  MethodDescription,
  MethodFigures,
  ModuleContext,
  ModuleMethod,
} from "../methods/method.ts";
import { pooledRank, rankParameter } from "../methods/truncate.ts";
import { rankLimit } from "../plan/rank_policy.ts";
import type { DeltaFigures } from "../report/figures.ts";
import { CoreSpace, sumOfCores } from "./core_space.ts";
import {
  decompose,
  type Decomposition,
  diagonal,
  inner,
  leading,
  type Matrix,
  multiply,
  norm,
  recompose,
} from "./matrix.ts";

/** Singular values up to this part of the largest are rounding. */
export function noiseOf(device: Device): number {
  return device.info.backend === "cpu" ? 1e-12 : 1e-6;
}

/** What tells one method on small matrices from another. */
export interface CoreDefinition
  extends
    Pick<MethodDescription, "name" | "title" | "summary" | "formula" | "source" | "parameters" | "check"> {
  /** The merged delta in the coordinates of the space, and what the report shall say of it. */
  merge(space: CoreSpace, context: ModuleContext): CoreResult | Promise<CoreResult>;
}

/** A merged delta U `core` V. */
export interface CoreResult {
  readonly core: Matrix;
  readonly figures?: MethodFigures;
}

/** A method that needs no more than the small matrices of a {@linkcode CoreSpace}. Its result is cut to `rank`. */
export function coreMethod(definition: CoreDefinition): ModuleMethod {
  const { merge, check, parameters, ...description } = definition;
  return {
    ...description,
    kind: "module",
    parameters: [...parameters, CORE_RANK],
    needs: { baseModel: false, calibration: false },
    outputRank: (ranks, { rank }) => Math.min(rankLimit(rank) ?? Infinity, pooledRank(ranks)),
    check(plan, values) {
      checkPooledRank(definition.name, plan, values);
      check?.(plan, values);
    },
    async merge(sources, context) {
      using space = await CoreSpace.open(sources);
      const { core, figures } = await merge(space, context);
      return cutToRank(space, core, context.rank, figures);
    },
  };
}

/** The same method where the rank decides what is computed, so that it must be known beforehand: no policy chooses it. */
export function withFixedRank(method: ModuleMethod): ModuleMethod {
  const parameters = method.parameters.map((spec) => spec.name === "rank" ? { ...spec, forms: [] } : spec);
  return { ...method, parameters };
}

const CORE_RANK = { ...rankParameter, defaultText: "Σ r_t: nothing is cut" };

/** Factors of the best approximation of U `core` V at a rank, and its figures. */
function cutToRank(
  space: CoreSpace,
  core: Matrix,
  rank: number,
  figures: MethodFigures = {},
): MergedFactors {
  const { device } = space.left;
  const all = decompose(core, noiseOf(device));
  const kept = leading(all, rank);
  const total = norm(core);
  const error = Math.sqrt(all.sigma.slice(kept.sigma.length).reduce((sum, sigma) => sum + sigma ** 2, 0));
  return {
    ...factorsOf(space, kept),
    figures: { ...figures, spectrum: [...all.sigma], rank_loss: total === 0 ? 0 : error / total },
    deltas: deltaFigures(space, recompose(kept), Math.max(1, rank)),
  };
}

/** Each factor takes √σ. A zero delta gets one pair of zeros, since a rank cannot be 0. */
function factorsOf(space: CoreSpace, { left, sigma, right }: Decomposition): Pick<MergedFactors, "a" | "b"> {
  const { device } = space.left;
  if (sigma.length === 0) {
    return { a: device.zeros([1, space.right.shape[1]!]), b: device.zeros([space.left.shape[1]!, 1]) };
  }
  const roots = diagonal(sigma.map(Math.sqrt));
  return { a: space.fromRight(multiply(roots, right)), b: space.fromLeft(multiply(left, roots)) };
}

function deltaFigures({ left, sources }: CoreSpace, merged: Matrix, rank: number): DeltaFigures {
  const sum = sumOfCores(sources);
  const best = leading(decompose(sum, noiseOf(left.device)), rank);
  return {
    sources: sources.map(({ adapter, core }) => ({
      adapter,
      squares: inner(core, core),
      inner: inner(merged, core),
    })),
    between: sources.map((one) => sources.map((other) => inner(one.core, other.core))),
    squares: inner(merged, merged),
    sumSquares: inner(sum, sum),
    sumInner: inner(merged, sum),
    bestSquares: best.sigma.reduce((total, sigma) => total + sigma ** 2, 0),
  };
}
