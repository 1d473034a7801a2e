import type { Tensor } from "@lora-loom/tensor";
import {
  type Moments,
  ridgeOf,
  type RightHandSide,
  rightHandSide,
  type Target,
  weightedGram,
} from "./equations.ts";
import type { SiteProblem } from "./solve_stage.ts";

/** Sites of a stage with the same c_i. */
export type SiteGroup = readonly SiteProblem[];

/** The equations of a group. */
export class GroupEquations implements Disposable {
  /** Σ c_i S_i. */
  readonly gram: Tensor;
  /** κ. */
  readonly ridge: number;
  readonly sites: readonly RightHandSide[];

  /** @param weights c_i, or these times one factor, which changes no solution */
  constructor(
    readonly group: SiteGroup,
    moments: readonly Moments[],
    target: Target,
    weights: readonly number[] = group[0]!.weights,
  ) {
    this.gram = weightedGram(moments, weights);
    this.ridge = ridgeOf(moments, weights);
    this.sites = group.map((site) =>
      rightHandSide(site, site.stackedB, site.baseWeight, moments, weights, target)
    );
  }

  /** Modules, for errors. */
  get where(): string {
    return this.group.map(({ site }) => site.module).join(", ");
  }

  [Symbol.dispose](): void {
    this.gram.dispose();
    for (const site of this.sites) site[Symbol.dispose]();
  }
}
