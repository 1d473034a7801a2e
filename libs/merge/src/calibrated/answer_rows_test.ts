import { assertEquals } from "@std/assert";
import { answerCount, answerRows, rowCount } from "./answer_rows.ts";

const SEQUENCES = [[5, 3], [2, 2], [4, 1], [3, 0]].map(([length, answerStart]) => ({
  tokens: new Uint32Array(length!),
  answerStart: answerStart!,
}));

Deno.test("answerRows() gives the rows before the answers' tokens when all tokens are rows", () => {
  assertEquals(SEQUENCES.map((sequence) => rowCount(sequence, undefined)), [5, 2, 4, 3]);
  // Nothing comes before the last sequence's first token.
  assertEquals([...answerRows(SEQUENCES, undefined)], [2, 3, 7, 8, 9, 11, 12]);
});

Deno.test("answerRows() gives an encoder none, and a decoder all but the last of each sequence", () => {
  const sequences = SEQUENCES.slice(0, 3);
  assertEquals(sequences.map((sequence) => rowCount(sequence, "prompt")), [3, 2, 1]);
  assertEquals([...answerRows(sequences, "prompt")], []);
  assertEquals(sequences.map((sequence) => rowCount(sequence, "answer")), [3, 1, 4]);
  assertEquals([...answerRows(sequences, "answer")], [0, 1, 4, 5, 6]);
});

Deno.test("answerCount() is how many rows of a sequence answerRows() gives", () => {
  for (const sequence of SEQUENCES) {
    for (const reads of [undefined, "prompt", "answer"] as const) {
      assertEquals(answerCount(sequence, reads), answerRows([sequence], reads).length);
    }
  }
});
