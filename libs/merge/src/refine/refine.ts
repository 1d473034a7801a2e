import { createHash } from "node:crypto";
import {
  type Deltas,
  type DifferentiableModel,
  disposeDeltas,
  FactorGradients,
  gatherRows,
} from "@lora-loom/model";
import { type Device, sumOfSquares, type Tensor } from "@lora-loom/tensor";
import { measureAgreement } from "../calibrated/agreement.ts";
import type { Session } from "../calibrated/session.ts";
import { MergeError } from "../errors.ts";
import type { Agreement } from "../report/figures.ts";
import { VERSIONS } from "../versions.ts";
import { type CheckpointFolder } from "./checkpoint.ts";
import { bestCheck, hasStalled, type RefinementHistory } from "./history.ts";
import { downloadPair, type HostPair, Learner, uploadPairs } from "./learner.ts";
import { lossOfBatch, type PendingLoss, readLoss } from "./loss.ts";
import { minibatch, pack, type PackedBatch } from "./minibatch.ts";
import type { RefineSettings } from "./parameters.ts";
import type { RefinementRecord } from "./report.ts";
import { learningRateAt } from "./schedule.ts";
import type { TaskData } from "./task_data.ts";
import { openTeachers, type Teachers } from "./teachers.ts";

/** Tokens that go through the model together. */
const TOKENS_PER_PASS = 4096;
/** A loss of so many times the first one is no longer going anywhere. */
const EXPLODED = 10;

/** What a refinement needs. */
export interface RefineRequest {
  readonly device: Device;
  readonly model: DifferentiableModel;
  readonly session: Session;
  readonly tasks: readonly TaskData[];
  /** The factors to start from, evenly split. */
  readonly start: ReadonlyMap<string, HostPair>;
  readonly settings: RefineSettings;
  readonly seed: number;
  readonly checkpoints: (fingerprint: string) => CheckpointFolder;
  readonly signal: AbortSignal | undefined;
  readonly progress: (stage: string, done: number, total: number) => void;
  readonly warn: (code: string, message: string) => void;
}

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
    const kept = factors && new Map<string, HostPair>();
    for (const [module, delta] of factors ?? []) kept!.set(module, await downloadPair(delta));
    return {
      factors: kept,
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
    const best = this.#best && new Map<string, HostPair>();
    for (const [module, delta] of this.#best ?? []) best!.set(module, await downloadPair(delta));
    const { step, history } = this;
    await this.checkpoints.save({ step, history, learner: await this.learner.save(), best });
  }

  async #cancelled(): Promise<MergeError> {
    await this.#save();
    return new MergeError(
      "cancelled",
      `the refinement was cancelled after step ${this.step} of ${this.request.settings.steps}`,
      `run it again: it goes on from there (delete ${this.checkpoints.path} to start from the beginning)`,
      this.checkpoints.path,
      "work",
    );
  }
}

function batchesOf({ model, tasks, settings, seed }: RefineRequest, step: number): PackedBatch[] {
  const members = minibatch(tasks, settings, seed, step);
  return pack(members, tasks, settings.tokenWeight, TOKENS_PER_PASS, model.layerReads);
}

/**
 * ν_l: the mean ‖h_l‖² over the answers of the first minibatch, or over all of its rows where none has an answer and in an encoder's
 * layers, which read none.
 */
async function streamSizes(request: RefineRequest, teachers: Teachers): Promise<number[]> {
  const { layerReads } = request.model;
  const sums = layerReads.map(() => 0), rows = layerReads.map(() => 0);
  const batches = batchesOf(request, 1);
  const hasAnswers = batches.some(({ answerRows }) => answerRows.length > 0);
  for (const { members, answerRows } of batches) {
    const streams = teachers.streams(members);
    for (const [layer, stream] of streams.entries()) {
      const chosen = hasAnswers && layerReads[layer] === layerReads.at(-1) ? answerRows : undefined;
      rows[layer]! += chosen?.length ?? stream.shape[0]!;
      sums[layer]! += await squares(stream, chosen);
      stream.dispose();
    }
  }
  return sums.map((sum, layer) => sum / rows[layer]!);
}

/** Σ ‖row‖² over the given rows. */
async function squares(stream: Tensor, rows: Uint32Array | undefined): Promise<number> {
  if (rows?.length === 0) return 0;
  using ids = rows && stream.device.upload(rows, [rows.length], "u32");
  using chosen = ids && gatherRows(stream, ids);
  using sum = sumOfSquares(chosen ?? stream);
  return (await stream.device.download(sum))[0]!;
}

/** A hash of everything that decides about the bytes of the result. */
function fingerprintOf({ start, tasks, settings, seed, device, model }: RefineRequest): string {
  const hash = createHash("sha256");
  const { checkpointEvery: _, ...deciding } = settings;
  hash.update(JSON.stringify([deciding, seed, device.info, VERSIONS, model.layerReads]));
  for (const [module, { a, b }] of start) {
    hash.update(JSON.stringify([module, a.shape, b.shape]));
    for (const { values } of [a, b]) {
      hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    }
  }
  for (const { name, weight, sequences, heldOut } of tasks) {
    hash.update(JSON.stringify([name, weight, sequences.map(({ answerStart }) => answerStart)]));
    for (const tokens of [...sequences.map(({ tokens }) => tokens), ...heldOut.prompts, ...heldOut.answers]) {
      hash.update(`|${tokens.join()}`);
    }
  }
  return hash.digest("hex");
}
