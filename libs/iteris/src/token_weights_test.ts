import { assertEquals, assertThrows } from "@std/assert";
import { assertRelativelyClose } from "@lora-loom/testing";
import { IterisError } from "./errors.ts";
import { tokenWeights } from "./token_weights.ts";

const sequences = [
  { tokens: Uint32Array.of(1, 2, 3, 4, 5), answerStart: 3 },
  { tokens: Uint32Array.of(1, 2, 3), answerStart: 3 },
];

Deno.test("tokenWeights() is the same for all tokens when ρ is 1", () => {
  assertRelativelyClose(
    tokenWeights(sequences, 1).flatMap((part) => [...part]),
    new Array(8).fill(1 / 8),
    1e-15,
  );
});

Deno.test("tokenWeights() counts the tokens before the answer's tokens in full, and all others by ρ", () => {
  const [first, second] = tokenWeights(sequences, 0.25);
  const total = 2 + 6 * 0.25;
  assertRelativelyClose(first!, [0.25, 0.25, 1, 1, 0.25].map((weight) => weight / total), 1e-15);
  assertRelativelyClose(second!, [0.25, 0.25, 0.25].map((weight) => weight / total), 1e-15);
});

Deno.test("tokenWeights() treats an answer from the first token on as predicted from there", () => {
  const [only] = tokenWeights([{ tokens: Uint32Array.of(7, 8, 9), answerStart: 0 }], 0);
  assertEquals([...only!], [0.5, 0.5, 0]);
});

Deno.test("tokenWeights() counts an encoder's tokens alike, whatever ρ is", () => {
  const [first, second] = tokenWeights(sequences, 0, "", "prompt");
  assertEquals([[...first!], [...second!]], [[1 / 6, 1 / 6, 1 / 6], [1 / 6, 1 / 6, 1 / 6]]);
});

Deno.test("tokenWeights() counts what a decoder reads before the answer's tokens, and its end not at all", () => {
  const [answered, unanswered] = tokenWeights(sequences, 0.5, "", "answer");
  assertEquals([[...answered!], [...unanswered!]], [[0.4, 0.4, 0], [0.2]]);
});

Deno.test("tokenWeights() throws no_answer_tokens when everything would weigh nothing", () => {
  const error = assertThrows(() => tokenWeights(sequences.slice(1), 0, "language"), IterisError);
  assertEquals([error.code, error.where], ["no_answer_tokens", "language"]);
});
