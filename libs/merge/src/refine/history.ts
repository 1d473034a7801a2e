import type { Agreement } from "../report/figures.ts";

/** One measurement on the prompts kept out. */
export interface AgreementCheck {
  /** Steps done before it. */
  readonly step: number;
  readonly agreement: Agreement;
}

/** What happened so far. */
export interface RefinementHistory {
  /** Loss of each step's minibatch, before the step: all of it, and the part that compares hidden states. */
  readonly losses: number[];
  readonly stateLosses: number[];
  readonly checks: AgreementCheck[];
}

/** The check whose factors are kept: the one that agrees most, the latest of equals. */
export function bestCheck({ checks }: RefinementHistory): AgreementCheck | undefined {
  return checks.reduce<AgreementCheck | undefined>(
    (best, check) => !best || check.agreement.mean >= best.agreement.mean ? check : best,
    undefined,
  );
}

/** Whether the last `patience` checks brought nothing better. */
export function hasStalled(history: RefinementHistory, patience: number): boolean {
  const best = bestCheck(history);
  return best !== undefined && history.checks.length - 1 - history.checks.indexOf(best) >= patience;
}
