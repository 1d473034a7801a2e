import { type Merged, type MergeRequest, type Sequence, splice, type Task } from "@lora-loom/iteris";
import { disposeDeltas } from "@lora-loom/model";
import { MergeError, throwIfCancelled } from "../errors.ts";
import type { MethodOutcome, ModelJob } from "../methods/method.ts";
import { seededRandom } from "./seeded_random.ts";
import type { Agreement } from "../report/figures.ts";
import { type HeldOutTask, heldOutTask, measureAgreement } from "./agreement.ts";
import { answeredSequences, calibrationSequences } from "./answers.ts";
import { type Candidate, candidates, givenCandidate } from "./candidates.ts";
import { type CalibrationRow, readCalibration } from "./rows.ts";
import { prepareMemory } from "./prepare_memory.ts";
import { type Expert, openSession, type Session } from "./session.ts";
import { siteFigures } from "./site_figures.ts";
import { summedDeltas } from "./summed_deltas.ts";

/** Solves for one merged adapter under given settings; the only thing in which `iteris` and `iteris+` differ here. */
export type Solve = (
  request: MergeRequest<never>,
  candidate: Candidate,
  job: ModelJob,
  session: Session,
) => Promise<Merged>;

/** Calibration data of one expert. */
interface TaskData {
  readonly expert: Expert;
  readonly sequences: readonly Sequence[];
  /** Prompts among them, from which splices are made. */
  readonly prompts: readonly Uint32Array[];
}

/** A merged adapter and how well it does. */
interface Tried {
  readonly candidate: Candidate;
  readonly merged: Merged;
  readonly agreement: Agreement | undefined;
}

/** Runs a method that is calibrated on prompts, from the base model's folder to the finished modules. */
export async function mergeCalibrated(job: ModelJob, solve: Solve): Promise<MethodOutcome> {
  const { parameters, signal } = job;
  const splits = await readSplits(job);
  throwIfCancelled(signal);
  const memory = await prepareMemory(job, splits);
  const { keyValueBytes } = memory.budgets;
  using session = await openSession(job, { residency: memory.residency, keyValueBytes });
  const { tasks, heldOut } = await prepare(job, session, splits);
  const solveWithin: Solve = (request, ...rest) => solve({ ...request, memory: memory.budgets }, ...rest);
  const best = parameters.tune === "agreement"
    ? await tune(job, session, tasks, heldOut, solveWithin)
    : await attempt(job, session, tasks, heldOut, solveWithin, givenCandidate(parameters));
  try {
    const outcome = { ...await outcomeOf(job, session, heldOut, best), predicted: memory.needs };
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
  if (parameters.tune === "agreement" && splits.every(({ heldOut }) => heldOut.length === 0)) {
    throw new MergeError(
      "too_few_rows",
      "tune: agreement needs prompts that calibration does not use, and the files have none left",
      "add rows to the calibration files, lower parameters.samples, or set parameters.tune to none",
      adapters[0]!.recipe.calibration,
    );
  }
  return splits;
}

async function prepare(
  { parameters, signal, progress }: ModelJob,
  session: Session,
  splits: Splits,
): Promise<{ readonly tasks: readonly TaskData[]; readonly heldOut: readonly HeldOutTask[] }> {
  const maxNewTokens = parameters.max_new_tokens as number;
  const tasks: TaskData[] = [];
  const heldOut: HeldOutTask[] = [];
  for (const [index, expert] of session.experts.entries()) {
    progress({ stage: `answers of ${expert.name}`, done: index, total: session.experts.length });
    const { calibration, heldOut: texts } = splits[index]!;
    const sequences = await calibrationSequences(session, calibration, expert.deltas, maxNewTokens, signal);
    tasks.push({ expert, sequences, prompts: promptsOf(session, calibration) });
    heldOut.push(await heldOutTask(session, expert, texts, maxNewTokens, signal));
  }
  return { tasks, heldOut };
}

function promptsOf({ tokenizer }: Session, rows: readonly CalibrationRow[]): Uint32Array[] {
  return rows.flatMap(({ text, isPrompt }) => isPrompt ? [tokenizer.encode(text)] : []);
}

/** One merge under one candidate's settings, and its agreement. */
async function attempt(
  job: ModelJob,
  session: Session,
  data: readonly TaskData[],
  heldOut: readonly HeldOutTask[],
  solve: Solve,
  candidate: Candidate,
  label = "",
): Promise<Tried> {
  const tasks: Task[] = [];
  for (const task of data) tasks.push(await solverTask(job, session, task, candidate.splices));
  const merged = await solve(
    {
      device: job.device,
      model: session.model,
      tasks,
      progress: ({ stage, done, total }) => job.progress({ stage: `${label}${stage}`, done, total }),
      ...(job.signal ? { signal: job.signal } : {}),
    },
    candidate,
    job,
    session,
  );
  try {
    job.progress({ stage: `${label}agreement`, done: 0, total: 1 });
    return {
      candidate,
      merged,
      agreement: await measureAgreement(session, heldOut, merged.deltas, job.signal),
    };
  } catch (error) {
    disposeDeltas(merged.deltas);
    throw error;
  }
}

async function solverTask(job: ModelJob, session: Session, task: TaskData, splices: number): Promise<Task> {
  const { name, deltas, weight } = task.expert;
  const made = splice(task.prompts, { count: splices, random: seededRandom(job.seed) });
  const maxNewTokens = job.parameters.max_new_tokens as number;
  const spliced = await answeredSequences(session, made, deltas, maxNewTokens, job.signal);
  return { name, deltas, weight, sequences: [...task.sequences, ...spliced] };
}

/** Tries the short list and keeps what agrees most with the adapters; the first of equals. */
async function tune(
  job: ModelJob,
  session: Session,
  tasks: readonly TaskData[],
  heldOut: readonly HeldOutTask[],
  solve: Solve,
): Promise<Tried> {
  const list = candidates(job.parameters);
  let best: Tried | undefined;
  for (const [index, candidate] of list.entries()) {
    const tried = await attempt(
      job,
      session,
      tasks,
      heldOut,
      solve,
      candidate,
      `setting ${index + 1} of ${list.length}: `,
    );
    const isBetter = !best || tried.agreement!.mean > best.agreement!.mean;
    disposeDeltas((isBetter ? best : tried)?.merged.deltas ?? new Map());
    if (isBetter) best = tried;
  }
  return best!;
}

async function outcomeOf(
  job: ModelJob,
  session: Session,
  heldOut: readonly HeldOutTask[],
  { candidate, merged, agreement }: Tried,
): Promise<MethodOutcome> {
  const { report } = merged;
  const experts = session.experts.map(({ deltas }) => deltas);
  const compare = async (stage: string, done: number, factor: number) => {
    job.progress({ stage, done, total: 2 });
    return await agreementOfSum(job, session, heldOut, factor);
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
    },
    warnings: heldOut.filter(({ prompts }) => prompts.length < (job.parameters.agreement_prompts as number))
      .map(
        ({ name, prompts }) => ({
          code: "few_prompts_kept_out",
          message:
            `${name} has ${prompts.length} prompts beside the calibration ones; agreement on it is a rough figure`,
          where: name,
        }),
      ),
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
