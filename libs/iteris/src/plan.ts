import { concatColumns, concatRows, sumOfSquares, type Tensor } from "@lora-loom/tensor";
import type { BaseModel, Delta, Deltas, Stage } from "./base_model.ts";
import type { AdaptedSite } from "./equations.ts";
import { IterisError } from "./errors.ts";
import type { Settings } from "./options.ts";
import type { Sequence, Task } from "./request.ts";
import { Scalars } from "./scalars.ts";
import { tokenWeights } from "./token_weights.ts";

/** A task, checked, with the samples that are used. */
export interface PlannedTask {
  readonly name: string;
  readonly deltas: Deltas;
  /** m_i. */
  readonly weight: number;
  readonly sequences: readonly Sequence[];
  /** By what a stage reads. */
  readonly tokenWeights: ReadonlyMap<Stage["reads"], TokenWeights>;
}

/** The diagonal of D_i over the rows of stages that read the same tokens. */
export interface TokenWeights {
  /** An array a sequence. */
  readonly sequences: readonly Float64Array<ArrayBuffer>[];
  /** The largest weight. */
  readonly largest: number;
}

/** A site with the deltas of all tasks stacked, so that Σ W_i = b·a. */
export interface PlannedSite extends AdaptedSite {
  readonly stacked: Delta;
}

/** What is merged where. Owns the stacked factors. */
export interface Plan extends Disposable {
  readonly tasks: readonly PlannedTask[];
  /** Adapted sites by stage index. */
  readonly sites: ReadonlyMap<number, readonly PlannedSite[]>;
}

/** `alpha: auto` keeps every fifth sample out, so it needs at least one of them. */
const FEWEST_FOR_AUTO = 5;

/**
 * Checks the tasks against the model and lays out the work.
 *
 * @throws {IterisError} `no_tasks`, `invalid_weight`, `too_few_samples`, `invalid_sequence`, `unknown_module`, `shape_mismatch`,
 *   `not_finite_adapter`, `no_answer_tokens`
 */
export async function makePlan(model: BaseModel, tasks: readonly Task[], settings: Settings): Promise<Plan> {
  if (tasks.length === 0) {
    throw new IterisError("no_tasks", "there is nothing to merge", "pass at least one task");
  }
  for (const task of tasks) checkDeltas(model, task);
  await checkFinite(tasks);
  const reads = new Set(model.stages.map((stage) => stage.reads));
  const planned = tasks.map((task) => planTask(task, reads, settings));
  const sites = new Map(model.stages.map((stage) => [stage.index, planSites(stage, tasks)]));
  return {
    tasks: planned,
    sites,
    [Symbol.dispose]() {
      for (const { stacked } of [...sites.values()].flat()) {
        stacked.a.dispose();
        stacked.b.dispose();
      }
    },
  };
}

function planTask(
  { name, deltas, sequences, weight = 1 }: Task,
  reads: ReadonlySet<Stage["reads"]>,
  settings: Settings,
): PlannedTask {
  if (!(weight > 0 && Number.isFinite(weight))) {
    throw new IterisError(
      "invalid_weight",
      `the weight of ${name} is ${weight}, expected a number above 0`,
      "set it above 0, or leave the adapter out",
      name,
    );
  }
  const used = sequences.slice(0, settings.samples);
  checkSamples(name, used, settings);
  const weights = [...reads].map((tokens) =>
    [tokens, withLargest(tokenWeights(used, settings.tokenWeight, name, tokens))] as const
  );
  return { name, deltas, weight, sequences: used, tokenWeights: new Map(weights) };
}

function withLargest(sequences: readonly Float64Array<ArrayBuffer>[]): TokenWeights {
  const largest = sequences.reduce((most, weights) => weights.reduce((x, y) => Math.max(x, y), most), 0);
  return { sequences, largest };
}

function checkSamples(task: string, sequences: readonly Sequence[], { samples, alpha }: Settings): void {
  const wanted = Math.max(samples ?? 1, alpha === "auto" ? FEWEST_FOR_AUTO : 1);
  if (sequences.length < wanted) {
    const isForAuto = wanted > (samples ?? 1);
    throw new IterisError(
      "too_few_samples",
      `${task} has ${sequences.length} calibration samples, expected at least ${wanted}${
        isForAuto ? ": alpha: auto keeps every fifth one out" : ""
      }`,
      isForAuto
        ? `use at least ${FEWEST_FOR_AUTO} samples, or set alpha to a number`
        : `add calibration text for ${task}, or ask for fewer samples`,
      task,
    );
  }
  sequences.forEach(({ tokens, answerStart }, index) => {
    if (
      tokens.length > 0 && Number.isInteger(answerStart) && answerStart >= 0 && answerStart <= tokens.length
    ) return;
    throw new IterisError(
      "invalid_sequence",
      `sample ${index} of ${task} has ${tokens.length} tokens and an answer from token ${answerStart}`,
      "pass at least one token, and an answerStart from 0 to the number of tokens",
      task,
    );
  });
}

function checkDeltas(model: BaseModel, { name, deltas }: Task): void {
  const sites = new Map(model.stages.flatMap((stage) => stage.sites).map((site) => [site.module, site]));
  for (const [module, { a, b }] of deltas) {
    const where = `${name}, ${module}`;
    const site = sites.get(module);
    if (!site) {
      throw new IterisError(
        "unknown_module",
        `${name} adapts ${module}, which the base model does not have`,
        "use the base model that the adapter was trained on",
        where,
      );
    }
    if (!isShape(a, [b.shape[1]!, site.inFeatures]) || !isShape(b, [site.outFeatures, a.shape[0]!])) {
      throw new IterisError(
        "shape_mismatch",
        `${module} of ${name} has factors [${a.shape}] and [${b.shape}], expected [r, ${site.inFeatures}] and [${site.outFeatures}, r]`,
        "use the base model that the adapter was trained on",
        where,
      );
    }
  }
}

/** Throws for factors with NaN or infinity, which show in the sum of their squares. */
async function checkFinite(tasks: readonly Task[]): Promise<void> {
  using scalars = new Scalars();
  for (const { name, deltas } of tasks) {
    for (const [module, { a, b }] of deltas) {
      for (const factor of [a, b]) {
        scalars.add(sumOfSquares(factor), (squares) => {
          if (!Number.isFinite(squares)) throw notFinite(name, module);
        });
      }
      await scalars.settleSome();
    }
  }
  await scalars.settle();
}

function notFinite(task: string, module: string): IterisError {
  return new IterisError(
    "not_finite_adapter",
    `${module} of ${task} contains NaN or infinity`,
    "use another checkpoint of the adapter",
    `${task}, ${module}`,
  );
}

function isShape(tensor: Tensor, [rows, columns]: readonly [number, number]): boolean {
  return tensor.shape.length === 2 && tensor.shape[0] === rows && tensor.shape[1] === columns;
}

function planSites(stage: Stage, tasks: readonly Task[]): PlannedSite[] {
  return stage.sites
    .map((site) => ({ site, deltas: tasks.map(({ deltas }) => deltas.get(site.module)) }))
    .filter(({ deltas }) => deltas.some((delta) => delta !== undefined))
    .map((adapted) => ({
      ...adapted,
      stacked: stackDeltas(adapted.deltas.filter((delta) => delta !== undefined)),
    }));
}

/** Σ W_i as one delta: the a's one below the other, the b's side by side. */
export function stackDeltas(deltas: readonly Delta[]): Delta {
  return { a: concatRows(deltas.map(({ a }) => a)), b: concatColumns(deltas.map(({ b }) => b)) };
}
