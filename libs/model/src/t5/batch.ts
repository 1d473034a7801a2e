import { causalSpans, positionsOf, tokenCount } from "../batch.ts";
import { ModelError } from "../errors.ts";

/** How the rows of both stacks divide into sequences. */
export interface T5Batch {
  /** Tokens of each sequence, prompt and answer. */
  readonly lengths: readonly number[];
  readonly answerStarts: readonly number[];
  /** Rows of the encoder: the prompts. */
  readonly promptLengths: readonly number[];
  /** Rows of the decoder: the start token, and then the answer. */
  readonly answerLengths: readonly number[];
}

/** @param answerStarts default: no sequence has an answer */
export function t5Batch(lengths: readonly number[], answerStarts: readonly number[] = lengths): T5Batch {
  return {
    lengths,
    answerStarts,
    promptLengths: answerStarts,
    answerLengths: lengths.map((length, index) => length - answerStarts[index]! + 1),
  };
}

/**
 * The tokens that each stack reads.
 *
 * @throws {ModelError} `invalid_answer_start`
 */
export function splitAtAnswers(
  sequences: readonly Uint32Array[],
  answerStarts: readonly number[] | undefined,
  startToken: number,
): { readonly prompts: readonly Uint32Array[]; readonly answers: readonly Uint32Array[] } {
  const starts = answerStarts ?? sequences.map(({ length }) => length);
  sequences.forEach(({ length }, index) => checkStart(starts[index], length, index));
  return {
    prompts: sequences.map((sequence, index) => sequence.subarray(0, starts[index])),
    answers: sequences.map((sequence, index) =>
      Uint32Array.of(startToken, ...sequence.subarray(starts[index]))
    ),
  };
}

function checkStart(start: number | undefined, length: number, index: number): void {
  if (start !== undefined && Number.isInteger(start) && start >= 1 && start <= length) return;
  throw new ModelError(
    "invalid_answer_start",
    `sequence ${index} has ${length} tokens and an answer from token ${start}; expected a number from 1 to ${length}`,
    "give the encoder at least one token of every sequence",
    `sequence ${index}`,
  );
}

/** Every row of a sequence sees all of `seen[i]`'s rows: first row and number of rows, `[rows, 2]`. */
export function fullSpans(rows: readonly number[], seen: readonly number[]): Uint32Array<ArrayBuffer> {
  const spans = new Uint32Array(2 * tokenCount(rows));
  let row = 0, first = 0;
  rows.forEach((count, index) => {
    for (let i = 0; i < count; i++) spans.set([first, seen[index]!], 2 * row++);
    first += seen[index]!;
  });
  return spans;
}

/** What each row of a stack's self-attention sees, and where in its sequence it is. */
export function selfSpans(
  stack: "encoder" | "decoder",
  batch: T5Batch,
): {
  readonly spans: Uint32Array<ArrayBuffer>;
  readonly positions: Uint32Array<ArrayBuffer>;
  readonly longest: number;
} {
  const lengths = stack === "encoder" ? batch.promptLengths : batch.answerLengths;
  return {
    spans: stack === "encoder" ? fullSpans(lengths, lengths) : causalSpans(lengths),
    positions: positionsOf(lengths),
    longest: Math.max(...lengths),
  };
}
