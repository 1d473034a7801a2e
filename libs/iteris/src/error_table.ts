import type { Tensor } from "@lora-loom/tensor";
import type { Deltas } from "./base_model.ts";
import { type ComparedOutputs, errorSquares, errorSquaresOf } from "./ops/error_squares.ts";
import { targetOf } from "./gather.ts";
import { ErrorSums, type OutputErrors } from "./output_error.ts";
import type { PlannedSite } from "./plan.ts";
import type { Run } from "./run_context.ts";
import { Scalars } from "./scalars.ts";
import { StackedFactors } from "./stacked_factors.ts";
import type { LoadedPair } from "./streams/task_stream.ts";

/** The output errors of a stage's sites, by task. */
export class ErrorTable implements Disposable {
  readonly #owned = new DisposableStack();
  readonly #scalars = this.#owned.use(new Scalars());
  readonly #sums: readonly (readonly ErrorSums[])[];
  /** A of the solution and of the sum of the deltas, site after site. */
  readonly #merged: StackedFactors;
  /** A_i by task, of the sites that have a delta. */
  readonly #experts: readonly (StackedFactors | undefined)[];

  /** @param solved the sites' merged deltas */
  constructor(readonly run: Run, readonly sites: readonly PlannedSite[], readonly solved: Deltas) {
    const { tasks } = run.plan;
    const solutions = sites.flatMap(({ site, stacked }) => [solved.get(site.module)!.a, stacked.a]);
    this.#sums = sites.map(() => tasks.map(() => new ErrorSums()));
    this.#merged = this.#owned.use(new StackedFactors(solutions));
    this.#experts = tasks.map((_, task) => {
      const factors = sites.flatMap(({ deltas }) => deltas[task]?.a ?? []);
      return factors.length > 0 ? this.#owned.use(new StackedFactors(factors)) : undefined;
    });
  }

  /** Adds one batch of a task; it counts once the table is settled. */
  async add(task: number, pair: LoadedPair): Promise<void> {
    const experts = this.#experts[task];
    using inner = this.#merged.of(pair.merged.input);
    using expertInner = experts?.of(pair.expert.input);
    let adapted = 0;
    for (const [index, { site, deltas, stacked }] of this.sites.entries()) {
      const { starts } = this.#merged;
      const delta = deltas[task];
      const outputs = {
        solution: { inner, first: starts[2 * index]!, b: this.solved.get(site.module)!.b },
        stacked: { inner, first: starts[2 * index + 1]!, b: stacked.b },
        meanFactor: 1 / this.run.plan.tasks.length,
        rootWeights: pair.rootWeights,
      };
      const target = delta && { inner: expertInner!, first: experts!.starts[adapted++]!, b: delta.b };
      const squares = this.#corrects(index)
        ? this.#denseSquares(index, task, pair, outputs)
        : errorSquares({ ...outputs, target });
      this.#scalars.add(squares, (...figures) => this.#sums[index]![task]!.add(figures));
    }
    await this.#scalars.settleSome();
  }

  /** Waits for what was added. */
  settle(): Promise<void> {
    return this.#scalars.settle();
  }

  /** The errors of a site, a task each. */
  of(site: number): OutputErrors[] {
    return this.#sums[site]!.map((sums) => sums.errors());
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }

  /** Whether a site's targets hold more than its deltas make. */
  #corrects(index: number): boolean {
    const { drift, stream } = this.run.settings;
    return drift || stream && this.sites[index]!.site.writesStream;
  }

  #denseSquares(
    index: number,
    task: number,
    pair: LoadedPair,
    outputs: Omit<ComparedOutputs, "target">,
  ): Tensor {
    using target = targetOf(this.run, this.sites[index]!, task, pair);
    return errorSquaresOf(target, outputs);
  }
}
