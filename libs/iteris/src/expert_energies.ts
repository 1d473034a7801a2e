import { adaptiveWeight, type MeasuredWeight, measuredWeight } from "./adaptive_weights.ts";
import type { Stage } from "./base_model.ts";
import { precisionOf } from "./options.ts";
import type { PlannedSite } from "./plan.ts";
import type { Run } from "./run_context.ts";
import type { Scalars } from "./scalars.ts";
import type { TaskStatistics } from "./statistics.ts";
import type { LoadedPair, TaskStream } from "./streams/task_stream.ts";

/** ‖W‖² and ‖D_i^½ X_i Wᵀ‖² as far as they are summed. */
interface Energies {
  weight: number;
  outputs: number;
}

/** Finds λ_i of one task at the sites of a stage, where no earlier pass has. It depends on the expert alone. */
export class ExpertEnergies implements Disposable {
  readonly #wanted: readonly PlannedSite[];
  readonly #energies = new Map<PlannedSite, Energies>();
  /** Held while rows are added. */
  readonly #weights = new Map<PlannedSite, MeasuredWeight>();
  /** Whether energies of outputs are taken from Gram matrices, in the end, rather than from the outputs of all rows. */
  readonly byGram: boolean;

  constructor(
    readonly run: Run,
    { reads }: Stage,
    sites: readonly PlannedSite[],
    readonly task: number,
    stream: TaskStream,
    readonly scalars: Scalars,
  ) {
    this.#wanted = sites.filter((site) => !run.adaptiveWeights.has(weightKey(task, site)));
    for (const site of this.#wanted) this.#energies.set(site, { weight: 1, outputs: 0 });
    // Gram matrices are summed in single precision.
    this.byGram = this.#measures && precisionOf(run.settings) === "single" &&
      isCheaperByGram(this.#wanted, stream.rows(reads), stream.diverged);
    if (this.byGram || !this.#measures) return;
    for (const site of this.#wanted) this.#weights.set(site, this.#begin(site));
  }

  /** Adds one batch, unless Gram matrices are waited for. */
  add({ expert, rootWeights }: LoadedPair): void {
    for (const [site, weight] of this.#weights) {
      this.#addOutputs(site, weight.outputEnergy(expert.input, rootWeights));
    }
  }

  /** Adds what sums over all batches say, if that is waited for. */
  addGrams(parts: readonly TaskStatistics[]): void {
    if (!this.byGram) return;
    for (const site of this.#wanted) {
      using weight = this.#begin(site);
      for (const { expertGram } of parts) {
        if (!expertGram) continue;
        this.#addOutputs(site, weight.outputEnergyOf(expertGram.sum), expertGram.factor);
      }
    }
  }

  /** Puts the λ_i down, after the scalars were settled. */
  keep(): void {
    for (const [site, { weight, outputs }] of this.#energies) {
      const value = adaptiveWeight(this.run.settings.adaptiveWeights, weight, outputs);
      keepAdaptiveWeight(this.run, this.task, site, value);
    }
  }

  [Symbol.dispose](): void {
    for (const weight of this.#weights.values()) weight[Symbol.dispose]();
  }

  get #measures(): boolean {
    return this.run.settings.adaptiveWeights !== "none" && this.#wanted.length > 0;
  }

  #begin(site: PlannedSite): MeasuredWeight {
    const { model, settings } = this.run;
    const kind = settings.adaptiveWeights as "full" | "delta";
    const weight = measuredWeight(model.weight(site.site.module), site.deltas[this.task], kind);
    this.scalars.add(weight.energy(), (value) => this.#energies.get(site)!.weight = value);
    return weight;
  }

  #addOutputs(site: PlannedSite, energy: ReturnType<MeasuredWeight["outputEnergy"]>, factor = 1): void {
    this.scalars.add(energy, (value) => this.#energies.get(site)!.outputs += factor * value);
  }
}

/** Whether a Gram matrix of the inputs, where it is not there anyway, and products with that cost less than the outputs of all rows. */
function isCheaperByGram(sites: readonly PlannedSite[], rows: number, diverged: boolean): boolean {
  const inFeatures = sites[0]!.site.inFeatures;
  const outFeatures = sites.reduce((sum, { site }) => sum + site.outFeatures, 0);
  // Half a Gram matrix is its mirror image.
  const gram = diverged ? rows * inFeatures ** 2 / 2 : 0;
  return gram + inFeatures ** 2 * outFeatures < rows * inFeatures * outFeatures;
}

function weightKey(task: number, { site }: PlannedSite): string {
  return `${task} ${site.module}`;
}

/** λ_i of a task at a site, once it is known. */
export function adaptiveWeightOf({ adaptiveWeights }: Run, task: number, site: PlannedSite): number {
  return adaptiveWeights.get(weightKey(task, site))!;
}

/** Makes λ_i of a task at a site known, so that it is not looked for. */
export function keepAdaptiveWeight(
  { adaptiveWeights }: Run,
  task: number,
  site: PlannedSite,
  value: number,
): void {
  adaptiveWeights.set(weightKey(task, site), value);
}
