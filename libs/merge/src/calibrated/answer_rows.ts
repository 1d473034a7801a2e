import type { Sequence } from "@lora-loom/iteris";
import type { Stage } from "@lora-loom/model";

/** Which tokens of a sequence are rows: all, those of the prompt, or the start token and the answer. */
export type Reads = Stage["reads"];

/** Rows of a sequence in what a layer reads. */
export function rowCount({ tokens, answerStart }: Sequence, reads: Reads): number {
  if (reads === "prompt") return answerStart;
  return reads === "answer" ? tokens.length - answerStart + 1 : tokens.length;
}

/** Rows of a sequence that predict a token of its answer: the first of them, and how many. */
function answerSpan({ tokens, answerStart }: Sequence, reads: Reads): [first: number, count: number] {
  if (reads === "prompt") return [0, 0];
  if (reads === "answer") return [0, tokens.length - answerStart];
  // Nothing predicts a sequence's first token.
  const first = Math.max(answerStart - 1, 0);
  return [first, Math.max(tokens.length - 1 - first, 0)];
}

/** How many rows of a sequence predict a token of its answer. */
export function answerCount(sequence: Sequence, reads: Reads): number {
  return answerSpan(sequence, reads)[1];
}

/** The rows of a batch that predict a token of an answer. */
export function answerRows(sequences: readonly Sequence[], reads: Reads): Uint32Array<ArrayBuffer> {
  let row = 0;
  return Uint32Array.from(sequences.flatMap((sequence) => {
    const [first, count] = answerSpan(sequence, reads);
    const rows = Array.from({ length: count }, (_, t) => row + first + t);
    row += rowCount(sequence, reads);
    return rows;
  }));
}
