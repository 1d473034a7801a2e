import type { Agreement, TriedSetting } from "../report/figures.ts";
import type { Candidate } from "./candidates.ts";

/** A merge under one candidate's settings. */
export interface Attempt {
  readonly candidate: Candidate;
  readonly agreement: Agreement | undefined;
}

/**
 * Tries every candidate and keeps the merge that agrees most with the adapters, the first of equals.
 *
 * @param attempt makes the merge; each must have measured its agreement where there are several
 * @param release lets go of a merge that is not kept
 */
export async function choose<T extends Attempt>(
  list: readonly Candidate[],
  attempt: (candidate: Candidate, label: string) => Promise<T>,
  release: (loser: T) => void,
): Promise<{ readonly kept: T; readonly tried: readonly TriedSetting[] }> {
  const attempts: { readonly candidate: Candidate; readonly agreement: number }[] = [];
  let kept: T | undefined;
  let best = -Infinity;
  try {
    for (const candidate of list) {
      const tried = await attempt(candidate, labelOf(list, attempts.length));
      const agreement = tried.agreement?.mean ?? 0;
      attempts.push({ candidate, agreement });
      if (agreement > best) {
        if (kept) release(kept);
        kept = tried;
        best = agreement;
      } else release(tried);
    }
  } catch (error) {
    if (kept) release(kept);
    throw error;
  }
  const tried = attempts.map(({ candidate, agreement }) =>
    triedSetting(candidate, agreement, kept!.candidate)
  );
  return { kept: kept!, tried };
}

/** What the names of a candidate's steps begin with; nothing where there is no choice. */
function labelOf(list: readonly Candidate[], index: number): string {
  return list.length === 1 ? "" : `setting ${index + 1} of ${list.length}: `;
}

function triedSetting(candidate: Candidate, agreement: number, kept: Candidate): TriedSetting {
  const { alpha, tokenWeight, splices, metric } = candidate;
  return { alpha, token_weight: tokenWeight, splices, metric, agreement, kept: candidate === kept };
}
