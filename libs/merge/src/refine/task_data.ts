import type { Sequence } from "@lora-loom/iteris";
import { type HeldOutTask, heldOutTask } from "../calibrated/agreement.ts";
import { answeredSequences, calibrationSequences } from "../calibrated/answers.ts";
import { checkRows, fittingSplices } from "../calibrated/check_rows.ts";
import { readCalibration } from "../calibrated/rows.ts";
import type { Session } from "../calibrated/session.ts";
import { MergeError } from "../errors.ts";
import type { RefineSettings } from "./parameters.ts";

/** What one adapter's task is refined and checked on. No label is in it. */
export interface TaskData {
  readonly name: string;
  /** How much the task counts, 1 on average over the tasks. */
  readonly weight: number;
  /** Prompts, splices among them, each with the adapter's own answer. */
  readonly sequences: readonly Sequence[];
  readonly heldOut: HeldOutTask;
}

/** Fewer sequences of a task are learnt by heart before anything else is. */
const LEAST_SEQUENCES = 8;

/**
 * Reads every adapter's prompts, makes splices of them, and lets the adapter answer all.
 *
 * @param calibrated rows that the method saw: prompts to keep out come after them
 * @throws {MergeError} `too_few_rows`, `too_few_prompts`
 */
export async function prepareTasks(
  session: Session,
  settings: RefineSettings,
  { calibrated, seed, signal, progress }: {
    readonly calibrated: number;
    readonly seed: number;
    readonly signal: AbortSignal | undefined;
    readonly progress: (stage: string, done: number, total: number) => void;
  },
): Promise<TaskData[]> {
  const { experts, tokenizer } = session;
  const meanWeight = experts.reduce((sum, { weight }) => sum + weight, 0) / experts.length;
  const tasks: TaskData[] = [];
  for (const [index, expert] of experts.entries()) {
    progress(`refinement, answers of ${expert.name}`, index, experts.length);
    const { maxNewTokens } = settings;
    const split = await readCalibration(
      expert.calibration,
      Math.max(settings.samples, calibrated),
      settings.agreementPrompts,
    );
    checkRows(session, expert.calibration, split, maxNewTokens);
    const { calibration, heldOut } = split;
    const rows = calibration.slice(0, settings.samples);
    const prompts = rows.flatMap(({ text, isPrompt }) => isPrompt ? [tokenizer.encode(text)] : []);
    const spliced = fittingSplices(session, prompts, { count: settings.splices, seed, maxNewTokens });
    const sequences = [
      ...await calibrationSequences(session, rows, expert.deltas, maxNewTokens, signal),
      ...await answeredSequences(session, spliced, expert.deltas, maxNewTokens, signal),
    ];
    if (sequences.length < LEAST_SEQUENCES) throw tooFew(expert.calibration, sequences.length);
    tasks.push({
      name: expert.name,
      weight: expert.weight / meanWeight,
      sequences,
      heldOut: await heldOutTask(session, expert, heldOut, maxNewTokens, signal),
    });
  }
  return tasks;
}

function tooFew(path: string, found: number): MergeError {
  return new MergeError(
    "too_few_prompts",
    `${path} gives ${found} sequences to refine on, and at least ${LEAST_SEQUENCES} are needed: fewer are learnt by heart`,
    "add rows and raise refine.samples, raise refine.splices, or leave refine out",
    path,
  );
}
