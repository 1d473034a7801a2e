import { type Journal, type Merged, type MergeRequest, type Sequence, type Task } from "@lora-loom/iteris";
import { disposeDeltas } from "@lora-loom/model";
import { MergeError, throwIfCancelled } from "../errors.ts";
import type { MethodOutcome, ModelJob } from "../methods/method.ts";
import type { StepJournal } from "../resume/step_journal.ts";
import type { Agreement, TriedSetting } from "../report/figures.ts";
import {
  agreementOf,
  type HeldOutTask,
  heldOutTask,
  type Matches,
  measureAgreement,
  measureMatches,
} from "./agreement.ts";
import { answeredSequences, calibrationSequences } from "./answers.ts";
import { fewKeptOut, withoutAnswers } from "./calibration_warnings.ts";
import { checkRows, fittingSplices } from "./check_rows.ts";
import { type Candidate, candidates, choosers } from "./candidates.ts";
import { choose } from "./choose.ts";
import { type CalibrationRow, readCalibration } from "./rows.ts";
import { prepareMemory } from "./prepare_memory.ts";
import { type Expert, openSession, type Session } from "./session.ts";
import { siteFigures } from "./site_figures.ts";
import { summedDeltas } from "./summed_deltas.ts";

/** What a merge works with from its beginning to its end. */
interface Work {
  readonly job: ModelJob;
  readonly session: Session;
  readonly journal: StepJournal;
}

/** What a solve knows besides its request. */
export interface SolveContext extends Pick<Work, "job" | "session"> {
  readonly candidate: Candidate;
  /**
   * The journal of one run of the solver.
   *
   * @param part what the names of its steps begin with, where there are several runs under the same settings
   */
  journal(part?: string): Journal;
}

/** Solves for one merged adapter under given settings; the only thing in which `iteris` and `iteris+` differ here. */
export type Solve = (request: MergeRequest<never>, context: SolveContext) => Promise<Merged>;

/** Calibration data of one expert. */
interface TaskData {
  /** Position in the recipe. */
  readonly index: number;
  readonly expert: Expert;
  readonly sequences: readonly Sequence[];
  /** Prompts among them, from which splices are made. */
  readonly prompts: readonly Uint32Array[];
}

/** A merged adapter and how well it does. */
interface Tried {
  readonly candidate: Candidate;
  readonly merged: Merged;
  readonly matches: Matches;
}

/** Runs a method that is calibrated on prompts, from the base model's folder to the finished modules. */
export async function mergeCalibrated(job: ModelJob, solve: Solve): Promise<MethodOutcome> {
  const { parameters, signal } = job;
  const splits = await readSplits(job);
  throwIfCancelled(signal);
  const memory = await prepareMemory(job, splits);
  const { keyValueBytes, tokensPerChunk } = memory.budgets;
  using session = await openSession(job, { residency: memory.residency, keyValueBytes });
  const journal = await job.journal({
    "tokens that are computed together": tokensPerChunk,
    "bytes of keys and values": keyValueBytes,
    "how weights are held": memory.residency,
  });
  const work: Work = { job, session, journal };
  const { tasks, heldOut } = await prepare(work, splits);
  const solveWithin: Solve = (request, context) => solve({ ...request, memory: memory.budgets }, context);
  const { kept: best, tried } = await choose(
    candidates(parameters),
    (candidate, label) => attempt(work, tasks, heldOut, solveWithin, candidate, label),
    ({ merged }) => disposeDeltas(merged.deltas),
  );
  try {
    const outcome = { ...await outcomeOf(work, tasks, heldOut, best, tried), predicted: memory.needs };
    for (const site of best.merged.report.sites) {
      const { a, b } = best.merged.deltas.get(site.module)!;
      await job.write(site.module, { a, b, figures: siteFigures(site) });
    }
    return outcome;
  } finally {
    disposeDeltas(best.merged.deltas);
  }
}

type Splits = Awaited<ReturnType<typeof readCalibration>>[];

async function readSplits({ adapters, parameters }: ModelJob): Promise<Splits> {
  const splits: Splits = [];
  for (const { recipe } of adapters) {
    splits.push(
      await readCalibration(
        recipe.calibration!,
        parameters.samples as number,
        parameters.agreement_prompts as number,
      ),
    );
  }
  const asking = choosers(parameters);
  if (asking.length > 0 && splits.every(({ heldOut }) => heldOut.length === 0)) {
    throw nothingToChooseBy(asking, parameters.agreement_prompts as number, adapters[0]!.recipe.calibration!);
  }
  return splits;
}

function nothingToChooseBy(asking: readonly string[], wanted: number, where: string): MergeError {
  const keepSome = wanted === 0
    ? "raise parameters.agreement_prompts"
    : "add rows to the calibration files, lower parameters.samples";
  const giveUp = asking.map((choice) => `parameters.${choice.split(":")[0]}`).join(" and ");
  return new MergeError(
    "too_few_rows",
    `${asking.join(" and ")} chooses on prompts that calibration does not use, and ${
      wanted === 0 ? "parameters.agreement_prompts is 0" : "the files have none left"
    }`,
    `${keepSome}, or set ${giveUp} to none`,
    where,
  );
}

async function prepare(
  { job: { parameters, signal, progress }, session, journal }: Work,
  splits: Splits,
): Promise<{ readonly tasks: readonly TaskData[]; readonly heldOut: readonly HeldOutTask[] }> {
  const maxNewTokens = parameters.max_new_tokens as number;
  for (const [index, { calibration }] of session.experts.entries()) {
    checkRows(session, calibration, splits[index]!, maxNewTokens);
  }
  const tasks: TaskData[] = [];
  const heldOut: HeldOutTask[] = [];
  for (const [index, expert] of session.experts.entries()) {
    progress({ stage: `answers of ${expert.name}`, done: index, total: session.experts.length });
    const { calibration, heldOut: texts } = splits[index]!;
    const sequences = await journal.recall(
      `answers of adapter ${index + 1}`,
      () => calibrationSequences(session, calibration, expert.deltas, maxNewTokens, signal),
    );
    tasks.push({ index, expert, sequences, prompts: promptsOf(session, calibration) });
    const kept = await journal.recall(
      `answers of adapter ${index + 1} to prompts kept out`,
      () => heldOutTask(session, expert, texts, maxNewTokens, signal),
    );
    heldOut.push(kept);
  }
  return { tasks, heldOut };
}

function promptsOf({ tokenizer }: Session, rows: readonly CalibrationRow[]): Uint32Array[] {
  return rows.flatMap(({ text, isPrompt }) => isPrompt ? [tokenizer.encode(text)] : []);
}

/** One merge under one candidate's settings, and its agreement. */
async function attempt(
  work: Work,
  data: readonly TaskData[],
  heldOut: readonly HeldOutTask[],
  solve: Solve,
  candidate: Candidate,
  label: string,
): Promise<Tried> {
  const { job, session, journal } = work;
  const tasks: Task[] = [];
  for (const task of data) tasks.push(await solverTask(work, task, candidate.splices));
  const merged = await solve(
    {
      device: job.device,
      model: session.model,
      tasks,
      progress: ({ stage, done, total }) => job.progress({ stage: `${label}${stage}`, done, total }),
      ...(job.signal ? { signal: job.signal } : {}),
    },
    { candidate, job, session, journal: (part = "") => journal.stages(`${label}${part}`) },
  );
  try {
    job.progress({ stage: `${label}agreement`, done: 0, total: 1 });
    const matches = await journal.recall(
      `${label}matches`,
      () => measureMatches(session, heldOut, merged.deltas, job.signal),
    );
    return { candidate, merged, matches };
  } catch (error) {
    disposeDeltas(merged.deltas);
    throw error;
  }
}

async function solverTask({ job, session, journal }: Work, task: TaskData, splices: number): Promise<Task> {
  const { name, deltas, weight } = task.expert;
  if (splices === 0) return { name, deltas, weight, sequences: task.sequences };
  const maxNewTokens = job.parameters.max_new_tokens as number;
  const made = fittingSplices(session, task.prompts, { count: splices, seed: job.seed, maxNewTokens });
  const spliced = await journal.recall(
    `answers of adapter ${task.index + 1} to ${splices} splices`,
    () => answeredSequences(session, made, deltas, maxNewTokens, job.signal),
  );
  return { name, deltas, weight, sequences: [...task.sequences, ...spliced] };
}

async function outcomeOf(
  { job, session, journal }: Work,
  tasks: readonly TaskData[],
  heldOut: readonly HeldOutTask[],
  { candidate, merged, matches }: Tried,
  tried: readonly TriedSetting[],
): Promise<MethodOutcome> {
  const { report } = merged;
  const agreement = agreementOf(matches);
  const experts = session.experts.map(({ deltas }) => deltas);
  const compare = async (stage: string, done: number, factor: number) => {
    job.progress({ stage, done, total: 2 });
    return await journal.recall(stage, () => agreementOfSum(job, session, heldOut, factor));
  };
  const sum = agreement && await compare("agreement of the sum", 0, 1);
  const mean = agreement && await compare("agreement of the mean", 1, 1 / experts.length);
  if (agreement) job.progress({ stage: "agreement", done: 2, total: 2 });
  return {
    figures: {
      passes: report.passes,
      ...(typeof candidate.alpha === "number" ? { alpha: candidate.alpha } : {}),
      token_weight: candidate.tokenWeight,
      splices: candidate.splices,
      calibration_tokens: report.tasks.map(({ tokens }) => tokens),
    },
    quality: {
      output_error: {
        merged: report.meanErrors.merged,
        sum: report.meanErrors.sum,
        mean: report.meanErrors.mean,
      },
      ...(agreement && sum && mean ? { agreement: { merged: agreement, sum, mean } } : {}),
      ...(tried.length > 1 ? { tried } : {}),
    },
    warnings: [
      ...withoutAnswers(
        session.model,
        tasks.map(({ expert: { name }, sequences }) => ({ name, sequences })),
      ),
      ...fewKeptOut(heldOut, job.parameters.agreement_prompts as number),
    ],
  };
}

/** Agreement of factor · Σ W_i: of the sum of the deltas, or of their mean. */
export async function agreementOfSum(
  { signal }: Pick<ModelJob, "signal">,
  session: Session,
  heldOut: readonly HeldOutTask[],
  factor: number,
): Promise<Agreement | undefined> {
  const deltas = summedDeltas(session.experts.map((expert) => expert.deltas), factor);
  try {
    return await measureAgreement(session, heldOut, deltas, signal);
  } finally {
    disposeDeltas(deltas);
  }
}
