import type { Parameters } from "../methods/method.ts";

/** Settings that `tune: agreement` tries; everything else is as the recipe says. */
export interface Candidate {
  readonly alpha: number | "auto";
  /** ρ */
  readonly tokenWeight: number;
  /** Spliced prompts a task. */
  readonly splices: number;
}

/** Splices beyond that repeat themselves: fifty prompts give 150. */
const SPLICES_PER_PROMPT = 3;

/** What the recipe (or the defaults) ask for. */
export function givenCandidate(parameters: Parameters): Candidate {
  return {
    alpha: parameters.alpha as number | "auto",
    tokenWeight: (parameters.token_weight ?? 1) as number,
    splices: (parameters.splices ?? 0) as number,
  };
}

/**
 * The short list, the recipe's own settings first so that a tie keeps them. Which one is best depends on the length of the
 * answers and on the templates of the prompts, so none can be a fixed choice.
 */
export function candidates(parameters: Parameters): readonly Candidate[] {
  const splices = SPLICES_PER_PROMPT * (parameters.samples as number);
  const list: Candidate[] = [
    givenCandidate(parameters),
    { alpha: 1e-4, tokenWeight: 1, splices: 0 },
    { alpha: 1e-3, tokenWeight: 0.3, splices: 0 },
    { alpha: 1e-4, tokenWeight: 1, splices },
    { alpha: 1e-3, tokenWeight: 0.3, splices },
  ];
  const seen = new Set<string>();
  return list.filter((candidate) => {
    const key = JSON.stringify(candidate);
    return !seen.has(key) && seen.add(key);
  });
}
