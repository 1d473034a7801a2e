import type { AgreementDifference, TriedSetting } from "../report/figures.ts";
import { agreementOf, type Matches, pairedDifference } from "./agreement.ts";
import type { Candidate } from "./candidates.ts";

/** A merge under one candidate's settings. */
export interface Attempt {
  readonly candidate: Candidate;
  readonly matches: Matches;
}

/**
 * Standard errors by which a merge with the metric has to agree more than one without. Below two, the difference is within what other
 * prompts would give, and what rounding alone moves from one device to the next.
 */
const MARGIN = 2;

/**
 * Tries every candidate and keeps the merge that agrees most with the adapters, the first of equals; one with the metric in place of one
 * without only where the difference is more than chance, prompt by prompt.
 *
 * @param attempt makes the merge; each must have measured its agreement where there are several
 * @param release lets go of a merge that is not kept
 */
export async function choose<T extends Attempt>(
  list: readonly Candidate[],
  attempt: (candidate: Candidate, label: string) => Promise<T>,
  release: (loser: T) => void,
): Promise<{ readonly kept: T; readonly tried: readonly TriedSetting[] }> {
  // Without their merges, which may be gone.
  const attempts: Attempt[] = [];
  let kept: T | undefined;
  try {
    for (const candidate of list) {
      const tried = await attempt(candidate, labelOf(list, attempts.length));
      attempts.push({ candidate, matches: tried.matches });
      if (!kept || isBetter(tried, kept)) {
        if (kept) release(kept);
        kept = tried;
      } else release(tried);
    }
  } catch (error) {
    if (kept) release(kept);
    throw error;
  }
  const first = attempts[0]!.matches;
  const tried = attempts.map((attempt, index) =>
    triedSetting(attempt, index === 0 ? null : pairedDifference(first, attempt.matches), kept!.candidate)
  );
  return { kept: kept!, tried };
}

function isBetter(latest: Attempt, best: Attempt): boolean {
  if (meanAgreement(latest) <= meanAgreement(best)) return false;
  if (latest.candidate.metric === best.candidate.metric || latest.candidate.metric === "none") return true;
  const { mean, standard_error } = pairedDifference(best.matches, latest.matches);
  return mean > MARGIN * standard_error;
}

function meanAgreement({ matches }: Attempt): number {
  return agreementOf(matches)?.mean ?? 0;
}

/** What the names of a candidate's steps begin with; nothing where there is no choice. */
function labelOf(list: readonly Candidate[], index: number): string {
  return list.length === 1 ? "" : `setting ${index + 1} of ${list.length}: `;
}

function triedSetting(
  attempt: Attempt,
  difference: AgreementDifference | null,
  kept: Candidate,
): TriedSetting {
  const { candidate } = attempt;
  const { alpha, tokenWeight, splices, metric } = candidate;
  return {
    alpha,
    token_weight: tokenWeight,
    splices,
    metric,
    agreement: meanAgreement(attempt),
    difference,
    kept: candidate === kept,
  };
}
