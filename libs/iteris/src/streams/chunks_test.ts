import { assertEquals } from "@std/assert";
import { chunksOf } from "./chunks.ts";

const sequences = [4, 3, 2, 6, 1, 2, 9].map((length, index) => ({
  tokens: new Uint32Array(length).fill(index),
  answerStart: index % 2,
}));
const indices = (lists: ReturnType<typeof chunksOf>) =>
  lists.map((chunk) => chunk.sequences.map((tokens) => tokens[0]));

Deno.test("chunksOf() fills chunks in order and gives a long sequence its own", () => {
  assertEquals(indices(chunksOf(sequences, 7, false)), [[0, 1], [2], [3, 4], [5], [6]]);
  assertEquals(indices(chunksOf(sequences, 1, false)), [[0], [1], [2], [3], [4], [5], [6]]);
});

Deno.test("chunksOf() says which sequences a chunk has, and where their answers begin", () => {
  const [first, second] = chunksOf(sequences, 7, false);
  assertEquals([first!.indices, first!.answerStarts], [[0, 1], [0, 1]]);
  assertEquals([second!.indices, second!.answerStarts], [[2], [0]]);
});

Deno.test("chunksOf() puts every fifth sequence apart when told to hold some out", () => {
  const chunks = chunksOf(sequences, 100, true);
  assertEquals(indices(chunks), [[0, 1, 2, 3, 5, 6], [4]]);
  assertEquals(chunks.map(({ heldOut }) => heldOut), [false, true]);
});
