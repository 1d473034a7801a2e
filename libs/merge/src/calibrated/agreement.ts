import type { Deltas } from "@lora-loom/model";
import type { Agreement, AgreementDifference } from "../report/figures.ts";
import { answer } from "./answers.ts";
import type { Session } from "./session.ts";

/** Prompts of one task that no calibration saw, and what its adapter answers to them. */
export interface HeldOutTask {
  readonly name: string;
  readonly prompts: readonly Uint32Array[];
  readonly answers: readonly Uint32Array[];
}

/** Lets the adapter answer the prompts kept out of calibration. */
export async function heldOutTask(
  session: Session,
  expert: { readonly name: string; readonly deltas: Deltas },
  texts: readonly string[],
  maxNewTokens: number,
  signal?: AbortSignal,
): Promise<HeldOutTask> {
  const prompts = texts.map((text) => session.tokenizer.encode(text));
  return {
    name: expert.name,
    prompts,
    answers: await answer(session, prompts, expert.deltas, maxNewTokens, signal),
  };
}

function isEqual(left: Uint32Array, right: Uint32Array): boolean {
  return left.length === right.length && left.every((token, index) => token === right[index]);
}

/** By adapter, which of its prompts kept out a merge answers as it does; only adapters with such prompts. */
export type Matches = Readonly<Record<string, readonly boolean[]>>;

/**
 * Answers every prompt kept out under `deltas` and compares with its adapter's, token by token up to and with the end. No label is
 * involved, so it may be used to choose settings.
 */
export async function measureMatches(
  session: Session,
  tasks: readonly HeldOutTask[],
  deltas: Deltas,
  signal?: AbortSignal,
): Promise<Matches> {
  const matches: Record<string, readonly boolean[]> = {};
  for (const { name, prompts, answers } of tasks) {
    if (prompts.length === 0) continue;
    // A longer answer than the adapter's differs from it already.
    const longest = answers.reduce((most, tokens) => Math.max(most, tokens.length), 0);
    const given = await answer(session, prompts, deltas, longest, signal);
    matches[name] = given.map((tokens, index) => isEqual(tokens, answers[index]!));
  }
  return matches;
}

/** How many of its prompts kept out each adapter agrees on with a merge; nothing where no prompts are kept out. */
export function agreementOf(matches: Matches): Agreement | undefined {
  const tasks = Object.fromEntries(
    Object.entries(matches).map(([name, hits]) => [name, meanOf(hits.map(Number))]),
  );
  const shares = Object.values(tasks);
  return shares.length === 0 ? undefined : { tasks, mean: meanOf(shares) };
}

/** Agreement of `deltas` with the adapters on the prompts kept out. */
export async function measureAgreement(
  session: Session,
  tasks: readonly HeldOutTask[],
  deltas: Deltas,
  signal?: AbortSignal,
): Promise<Agreement | undefined> {
  return agreementOf(await measureMatches(session, tasks, deltas, signal));
}

/**
 * How much more the second of two merges agrees than the first, and the standard error of that, from the differences prompt by prompt: much
 * of what makes prompts hard is common to both, so it is less than the errors of two agreements would say.
 */
export function pairedDifference(first: Matches, second: Matches): AgreementDifference {
  const tasks = Object.entries(first).map(([name, before]) => {
    const differences = before.map((hit, i) => Number(second[name]![i]) - Number(hit));
    const mean = meanOf(differences);
    const squares = differences.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    const count = differences.length;
    // One prompt says nothing about how much prompts differ: 1 is the most that it can be.
    return { mean, variance: count > 1 ? squares / (count - 1) / count : 1 };
  });
  return {
    mean: meanOf(tasks.map(({ mean }) => mean)),
    standard_error: Math.sqrt(tasks.reduce((sum, { variance }) => sum + variance, 0)) / tasks.length,
  };
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
