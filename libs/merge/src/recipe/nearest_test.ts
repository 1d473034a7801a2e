import { assertEquals, assertStringIncludes } from "@std/assert";
import { didYouMean, editDistance, nearest } from "./nearest.ts";

Deno.test("editDistance() counts insertions, deletions, substitutions and swaps", () => {
  const cases: [string, string, number][] = [
    ["", "", 0],
    ["rank", "", 4],
    ["rank", "rnak", 1],
    ["rank", "ranks", 1],
    ["rank", "tank", 1],
    ["kitten", "sitting", 3],
  ];
  for (const [from, to, distance] of cases) {
    assertEquals([editDistance(from, to), editDistance(to, from)], [distance, distance], `${from} ${to}`);
  }
});

Deno.test("nearest() takes the first of equals, case aside", () => {
  assertEquals(nearest("RANK", ["seed", "rank"]), "rank");
  assertEquals(nearest("x", ["a", "b"]), "a");
  assertEquals(nearest("x", []), undefined);
});

Deno.test("didYouMean() asks only when a word is near", () => {
  assertStringIncludes(didYouMean("ourput", ["output", "seed"]), 'did you mean "output"?');
  assertStringIncludes(didYouMean("zzzzzz", ["output", "seed"]), "the nearest is");
});
