import type { Stage } from "./base_model.ts";
import { IterisError } from "./errors.ts";
import type { Sequence } from "./request.ts";

/**
 * The diagonal of D_i, one array per sequence: 1 where the next token belongs to the answer (its end token included), `tokenWeight` (ρ) elsewhere,
 * scaled so that the weights of all sequences together sum to 1.
 *
 * @param reads whose rows: an encoder's all count alike, for none of them predicts anything; a decoder never reads an answer's
 *   last token, whose row counts nothing
 * @throws {IterisError} `no_answer_tokens` when every weight is zero
 */
export function tokenWeights(
  sequences: readonly Sequence[],
  tokenWeight: number,
  where = "",
  reads?: Stage["reads"],
): Float64Array<ArrayBuffer>[] {
  const unscaled = sequences.map((sequence) => sequenceWeights(sequence, tokenWeight, reads));
  const total = unscaled.flatMap((weights) => [...weights]).reduce((sum, weight) => sum + weight, 0);
  if (!(total > 0)) {
    throw new IterisError(
      "no_answer_tokens",
      "no sequence has an answer, and token_weight 0 counts nothing else",
      "use a token_weight above 0, or calibration prompts that the adapter answers",
      where,
    );
  }
  return unscaled.map((weights) => weights.map((weight) => weight / total));
}

function sequenceWeights(
  { tokens, answerStart }: Sequence,
  tokenWeight: number,
  reads: Stage["reads"],
): Float64Array<ArrayBuffer> {
  if (reads === "prompt") return new Float64Array(answerStart).fill(1);
  if (reads === "answer") return decoderWeights(tokens.length - answerStart, tokenWeight);
  const weights = new Float64Array(tokens.length).fill(tokenWeight);
  weights.fill(1, Math.max(answerStart - 1, 0), tokens.length - 1);
  return weights;
}

/** Rows of the start token and the answer's: each predicts one of its tokens, and the last none. */
function decoderWeights(answerTokens: number, tokenWeight: number): Float64Array<ArrayBuffer> {
  if (answerTokens === 0) return Float64Array.of(tokenWeight);
  return new Float64Array(answerTokens + 1).fill(1, 0, answerTokens);
}
