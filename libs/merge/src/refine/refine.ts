import { type Deltas, disposeDeltas, FactorGradients } from "@lora-loom/model";
import { measureAgreement } from "../calibrated/agreement.ts";
import { describeError, MergeError } from "../errors.ts";
import type { Agreement } from "../report/figures.ts";
import type { CheckpointFolder } from "./checkpoint.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { bestCheck, hasStalled, type RefinementHistory } from "./history.ts";
import { downloadPairs, type HostPair, Learner, uploadPairs } from "./learner.ts";
import { lossOfBatch, type PendingLoss, readLoss } from "./loss.ts";
import { batchesOf, TOKENS_PER_PASS } from "./minibatch.ts";
import type { RefinementRecord } from "./report.ts";
import type { RefineRequest } from "./request.ts";
import { learningRateAt } from "./schedule.ts";
import { streamSizes } from "./stream_sizes.ts";
import { openTeachers, type Teachers } from "./teachers.ts";

/** A loss of so many times the first one is no longer going anywhere. */
const EXPLODED = 10;

/** A refined adapter. */
export interface Refined {
  /** The factors to keep; nothing where no step agreed better than the merge before. */
  readonly factors: ReadonlyMap<string, HostPair> | undefined;
  /** Of the merge before, and of what is kept; only with prompts kept out. */
  readonly before: Agreement | undefined;
  readonly after: Agreement | undefined;
  readonly record: RefinementRecord;
}

/**
 * Fits the factors of all modules together to what each adapter makes of its own prompts: hidden states after every layer, and a
 * little of the answers' distributions. Nothing is labelled. The same request on the same device gives the same bytes, also when it was
 * interrupted and goes on from a checkpoint.
 *
 * @throws {MergeError} `refinement_diverged`, `cancelled`
 */
export async function refine(request: RefineRequest): Promise<Refined> {
  await using run = await Run.open(request);
  await run.toTheEnd();
  return await run.result();
}

/** One refinement under way. */
class Run implements AsyncDisposable {
  #best: Deltas | undefined;
  #isWarned = false;

  private constructor(
    readonly request: RefineRequest,
    readonly learner: Learner,
    readonly history: RefinementHistory,
    readonly checkpoints: CheckpointFolder,
    readonly teachers: Teachers,
    readonly sizes: readonly number[],
    best: Deltas | undefined,
    private step: number,
  ) {
    this.#best = best;
  }

  static async open(request: RefineRequest): Promise<Run> {
    const { device, model, session, tasks, start, progress } = request;
    const checkpoints = request.checkpoints(fingerprintOf(request));
    const saved = await checkpoints.load();
    if (saved === "foreign") {
      request.warn(
        "checkpoint_ignored",
        `${checkpoints.path} belongs to another refinement, or to other inputs; this one starts from the beginning`,
      );
    }
    const teachers = await openTeachers(
      model,
      session.experts,
      tasks,
      TOKENS_PER_PASS,
      (done) => progress(`refinement, hidden states of ${tasks[done]!.name}`, done, tasks.length),
    );
    const sizes = await streamSizes(request, teachers);
    const going = saved === "foreign" ? undefined : saved;
    return new Run(
      request,
      going ? Learner.restore(device, going.learner) : Learner.begin(device, start),
      going?.history ?? { losses: [], stateLosses: [], checks: [] },
      checkpoints,
      teachers,
      sizes,
      going?.best && uploadPairs(device, going.best),
      going?.step ?? 0,
    );
  }

  async toTheEnd(): Promise<void> {
    const { settings, signal } = this.request;
    if (this.step === 0 && this.history.checks.length === 0) await this.#check();
    while (this.step < settings.steps && !hasStalled(this.history, settings.patience)) {
      if (signal?.aborted) throw await this.#cancelled();
      await this.#takeStep();
      if (this.step % settings.checkEvery === 0 || this.step === settings.steps) await this.#check();
      if (this.step % settings.checkpointEvery === 0 && this.step < settings.steps) await this.#save();
    }
  }

  async result(): Promise<Refined> {
    const { settings, tasks } = this.request;
    const { checks, losses, stateLosses } = this.history;
    const best = bestCheck(this.history);
    // Without prompts kept out there is nothing to choose by: the last step is kept.
    const factors = best ? this.#best : this.learner.deltas;
    return {
      factors: factors && await downloadPairs(factors),
      before: checks[0]?.agreement,
      after: best?.agreement,
      record: {
        steps: settings.steps,
        steps_done: this.step,
        kept_step: best?.step ?? this.step,
        sequences: Object.fromEntries(tasks.map(({ name, sequences }) => [name, sequences.length])),
        losses,
        state_losses: stateLosses,
        agreement: checks.map(({ step, agreement }) => ({ step, ...agreement })),
      },
    };
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.learner[Symbol.dispose]();
    if (this.#best) disposeDeltas(this.#best);
    return Promise.resolve();
  }

  /** One minibatch: forth and back, then a step of Adam. */
  async #takeStep(): Promise<void> {
    const { model, settings, progress } = this.request;
    const step = this.step + 1;
    using gradients = new FactorGradients(this.learner.deltas);
    const pending: PendingLoss[] = [];
    for (const batch of batchesOf(this.request, step)) {
      const streams = this.teachers.streams(batch.members);
      pending.push(lossOfBatch(model, batch, streams, this.sizes, this.learner.deltas, settings, gradients));
      streams.forEach((stream) => stream.dispose());
    }
    const { states, divergence } = await readLoss(pending);
    const loss = states + divergence;
    this.#checkLoss(loss, step);
    this.history.losses.push(loss);
    this.history.stateLosses.push(states);
    this.learner.step(gradients.sums, step, learningRateAt(step, settings));
    this.step = step;
    progress(this.#status(loss), step, settings.steps);
  }

  #status(loss: number): string {
    const last = this.history.checks.at(-1)?.agreement.mean;
    const agreement = last === undefined ? "" : `, agreement ${last.toFixed(3)}`;
    return `refinement, loss ${loss.toFixed(4)} (first ${
      this.history.losses[0]!.toFixed(4)
    })${agreement}, step`;
  }

  #checkLoss(loss: number, step: number): void {
    const first = this.history.losses[0] ?? loss;
    if (Number.isFinite(loss) && loss <= EXPLODED * first) return;
    throw new MergeError(
      "refinement_diverged",
      `the loss is ${loss} at step ${step} of the refinement, after ${first.toPrecision(4)} at the first`,
      "lower it, for example with --set refine.learning_rate=3e-4, or leave refine out",
      "refine.learning_rate",
      "work",
    );
  }

  /** Measures agreement, and keeps the factors if there was none better. */
  async #check(): Promise<void> {
    const { session, tasks, signal, progress, settings } = this.request;
    progress("refinement, agreement after step", this.step, settings.steps);
    const agreement = await measureAgreement(
      session,
      tasks.map(({ heldOut }) => heldOut),
      this.learner.deltas,
      signal,
    );
    if (!agreement) return;
    const { step } = this;
    this.history.checks.push({ step, agreement });
    if (step === 0 || bestCheck(this.history)!.step !== step) return;
    if (this.#best) disposeDeltas(this.#best);
    this.#best = this.learner.snapshot();
  }

  async #save(): Promise<void> {
    const best = this.#best && await downloadPairs(this.#best);
    const { step, history } = this;
    const checkpoint = { step, history, learner: await this.learner.save(), best };
    try {
      await this.checkpoints.save(checkpoint);
    } catch (error) {
      // The refinement goes on without: that it might be interrupted is no reason to interrupt it.
      this.#warnOfNoCheckpoint(error);
    }
  }

  #warnOfNoCheckpoint(error: unknown): void {
    if (this.#isWarned) return;
    this.#isWarned = true;
    this.request.warn(
      "checkpoint_not_kept",
      `no checkpoint can be kept (${
        describeError(error).message
      }): an interrupted refinement starts from the beginning`,
    );
  }

  async #cancelled(): Promise<MergeError> {
    await this.#save();
    return new MergeError(
      "cancelled",
      `the refinement was cancelled after step ${this.step} of ${this.request.settings.steps}`,
      this.#isWarned
        ? "run it again"
        : "run it again: it goes on from there (add --fresh to start from the beginning)",
      this.checkpoints.path,
      "work",
    );
  }
}
