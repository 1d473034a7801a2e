import { IterisError } from "./errors.ts";
import type { Sequence } from "./request.ts";

/**
 * The diagonal of D_i, one array per sequence: 1 where the next token belongs to the answer (its end token included),
 * `tokenWeight` (ρ) elsewhere, scaled so that the weights of all sequences together sum to 1.
 *
 * @throws {IterisError} `no_answer_tokens` when every weight is zero
 */
export function tokenWeights(
  sequences: readonly Sequence[],
  tokenWeight: number,
  where = "",
): Float64Array<ArrayBuffer>[] {
  let total = 0;
  for (const { tokens, answerStart } of sequences) {
    const answers = predictsAnswer(tokens.length, answerStart);
    total += answers + tokenWeight * (tokens.length - answers);
  }
  if (!(total > 0)) {
    throw new IterisError(
      "no_answer_tokens",
      "no sequence has an answer, and token_weight 0 counts nothing else",
      "use a token_weight above 0, or calibration prompts that the adapter answers",
      where,
    );
  }
  return sequences.map(({ tokens, answerStart }) => {
    const weights = new Float64Array(tokens.length).fill(tokenWeight / total);
    weights.fill(1 / total, Math.max(answerStart - 1, 0), tokens.length - 1);
    return weights;
  });
}

/** Positions whose next token belongs to the answer: `answerStart − 1` up to the one before the last. */
function predictsAnswer(length: number, answerStart: number): number {
  return Math.max(length - 1 - Math.max(answerStart - 1, 0), 0);
}
