import type { Deltas } from "@lora-loom/model";
import type { Agreement } from "../report/figures.ts";
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

/**
 * Agreement of `deltas` with the adapters on their own prompts, token by token up to and with the end. No label is
 * involved, so it may be used to choose settings.
 */
export async function measureAgreement(
  session: Session,
  tasks: readonly HeldOutTask[],
  deltas: Deltas,
  signal?: AbortSignal,
): Promise<Agreement | undefined> {
  const shares: Record<string, number> = {};
  for (const { name, prompts, answers } of tasks) {
    if (prompts.length === 0) continue;
    // A longer answer than the adapter's differs from it already.
    const longest = answers.reduce((most, tokens) => Math.max(most, tokens.length), 0);
    const given = await answer(session, prompts, deltas, longest, signal);
    shares[name] = given.filter((tokens, index) => isEqual(tokens, answers[index]!)).length / prompts.length;
  }
  const values = Object.values(shares);
  if (values.length === 0) return undefined;
  return { tasks: shares, mean: values.reduce((sum, share) => sum + share, 0) / values.length };
}
