import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { causalSpans, checkSequences, concatenated, lastRows, positionsOf, selectedRows } from "./batch.ts";
import { ModelError } from "./errors.ts";

Deno.test("positionsOf(), causalSpans() and lastRows() restart in every sequence", () => {
  assertEquals([...positionsOf([2, 1, 3])], [0, 1, 0, 0, 1, 2]);
  assertEquals([...causalSpans([2, 1, 3])], [0, 1, 0, 2, 2, 1, 3, 1, 3, 2, 3, 3]);
  assertEquals([...lastRows([2, 1, 3])], [1, 2, 5]);
});

Deno.test("concatenated() joins sequences without padding", () => {
  assertEquals([...concatenated([Uint32Array.of(5, 6), Uint32Array.of(7)])], [5, 6, 7]);
});

Deno.test("selectedRows() selects all, last or given rows, and refuses rows past the end", () => {
  assertEquals(selectedRows("all", [2, 1]), undefined);
  assertEquals(selectedRows("last", [2, 1]), Uint32Array.of(1, 2));
  assertEquals(selectedRows(Uint32Array.of(2, 0), [2, 1]), Uint32Array.of(2, 0));
  assertEquals(
    assertThrows(() => selectedRows(Uint32Array.of(3), [2, 1]), ModelError).code,
    "row_out_of_range",
  );
});

Deno.test("checkSequences() refuses empty, too long and foreign sequences", () => {
  const limits = { vocabularySize: 10, maxPositions: 4 };
  const code = (sequences: Uint32Array[], room = 0) =>
    assertThrows(() => checkSequences(sequences, limits, room), ModelError).code;
  assertEquals(code([]), "empty_sequence");
  assertEquals(code([Uint32Array.of(1), new Uint32Array(0)]), "empty_sequence");
  assertEquals(code([Uint32Array.of(1, 2, 3)], 2), "sequence_too_long");
  assertEquals(code([Uint32Array.of(1, 10)]), "token_out_of_range");
  const error = assertThrows(
    () => checkSequences([Uint32Array.of(1), Uint32Array.of(99)], limits),
    ModelError,
  );
  assertStringIncludes(error.message, "sequence 1 has token id 99, the model's vocabulary has 10");
  checkSequences([Uint32Array.of(1, 2)], limits, 2);
});

Deno.test("causalSpans() reaches back a window at most", () => {
  assertEquals([...causalSpans([4, 1], 2)], [0, 1, 0, 2, 1, 2, 2, 2, 4, 1]);
});
