import { gemm, type Tensor } from "@lora-loom/tensor";
import { accumulate, multiple, plus, stackRows, weightedSum } from "./algebra.ts";
import type { Delta, Site } from "./base_model.ts";

/** A site with every task's delta there; `undefined` where an adapter lacks the module, which counts as W_i = 0. */
export interface AdaptedSite {
  readonly site: Site;
  readonly deltas: readonly (Delta | undefined)[];
}

/** The statistics of one task at a stage, with their norms. */
export interface Moments {
  /** S_i, `[in, in]`. */
  readonly own: Tensor;
  /** C_i − S_i, `[in, in]`. */
  readonly drift: Tensor | undefined;
  /** A_i C_i by module, `[r, in]`: where the equations need no more of the drift, which is then summed for its norm only. */
  readonly crossOfFactors: ReadonlyMap<string, Tensor>;
  /** (H_i − H̃ᵢ)ᵀ D_i X̃ᵢ, `[hidden, in]`. */
  readonly stream: Tensor | undefined;
  /** n_i = ‖S_i‖_F. */
  readonly ownNorm: number;
  /** k_i = ‖C_i‖_F. */
  readonly crossNorm: number;
}

/** Which corrections the target has. */
export interface Target {
  readonly drift: boolean;
  readonly stream: boolean;
}

/**
 * The right-hand side of W (G + α κ I) = N + α P at one site.
 *
 * Without drift and stream every term has the stacked factors on its left, W = [s_1B_1 … s_NB_N]·A, so N and P hold the Σr rows of
 * A alone (`stacked` is that factor). With them W is dense, and N and P have a row per output.
 */
export class RightHandSide implements Disposable {
  /**
   * @param target N, `[Σr or out, in]`
   * @param pull P, `[Σr or out, in]`
   * @param stacked [s_1B_1 … s_NB_N], `[out, Σr]`, where W is that times what is solved for; the caller's
   */
  constructor(readonly target: Tensor, readonly pull: Tensor, readonly stacked: Tensor | undefined) {}

  /** N + α P. */
  at(alpha: number): Tensor {
    return plus(this.target, this.pull, alpha);
  }

  [Symbol.dispose](): void {
    this.target.dispose();
    this.pull.dispose();
  }
}

/** Σ_i c_i S_i, `[in, in]`. */
export function weightedGram(moments: readonly Moments[], weights: readonly number[]): Tensor {
  return weightedSum(moments.map(({ own }) => own), weights)!;
}

/** κ = Σ_i c_i n_i: what α is multiplied by on the diagonal. */
export function ridgeOf(moments: readonly Moments[], weights: readonly number[]): number {
  return moments.reduce((sum, { ownNorm }, task) => sum + weights[task]! * ownNorm, 0);
}

/**
 * Builds the right-hand side of a site.
 *
 * @param stackedB [s_1B_1 … s_NB_N] of the tasks that have the module, `[out, Σr]`
 * @param baseWeight W0, `[out, in]`; needed for drift alone
 * @param weights c_i
 */
export function rightHandSide(
  { site, deltas }: AdaptedSite,
  stackedB: Tensor,
  baseWeight: Tensor | undefined,
  moments: readonly Moments[],
  weights: readonly number[],
  { drift, stream }: Target,
): RightHandSide {
  const correctsStream = stream && site.writesStream;
  // With drift the expert's whole output is the target and the ridge pulls W0 + W towards W0 + W_i with weight n_i; the published
  // objective pulls with k_i.
  const pulls = moments.map(({ ownNorm, crossNorm }) => drift ? ownNorm : crossNorm);
  const stackedTarget = stackPresent(
    deltas,
    ({ a }, task) => timesCross(a, site, moments[task]!, weights[task]!),
  );
  const stackedPull = stackPresent(deltas, ({ a }, task) => multiple(a, weights[task]! * pulls[task]!));
  if (!drift && !correctsStream) return new RightHandSide(stackedTarget, stackedPull, stackedB);

  const target = gemm(stackedB, stackedTarget);
  const pull = gemm(stackedB, stackedPull);
  stackedTarget.dispose();
  stackedPull.dispose();
  if (drift) addDrift(target, baseWeight!, moments, weights);
  if (correctsStream) {
    moments.forEach(({ stream }, task) => stream && accumulate(target, stream, weights[task]!));
  }
  return new RightHandSide(target, pull, undefined);
}

/** target += W0 Σ_i c_i (C_i − S_i). */
function addDrift(
  target: Tensor,
  baseWeight: Tensor,
  moments: readonly Moments[],
  weights: readonly number[],
): void {
  using sum = weightedSum(moments.map(({ drift }) => drift), weights);
  if (sum) gemm(baseWeight, sum, { into: target, beta: 1 });
}

/** c_i A_i C_i. */
function timesCross(
  a: Tensor,
  { module }: Site,
  { own, drift, crossOfFactors }: Moments,
  weight: number,
): Tensor {
  const known = crossOfFactors.get(module);
  if (known) return multiple(known, weight);
  const product = gemm(a, own, { alpha: weight });
  return drift ? gemm(a, drift, { alpha: weight, into: product, beta: 1 }) : product;
}

/** One block of rows for every adapter that has the module. */
function stackPresent(
  deltas: readonly (Delta | undefined)[],
  block: (delta: Delta, task: number) => Tensor,
): Tensor {
  return stackRows(deltas.flatMap((delta, task) => delta ? [block(delta, task)] : []));
}
