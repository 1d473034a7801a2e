import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { gaussians } from "@lora-loom/testing";
import { hungarian } from "./hungarian.ts";

/** The least cost over all injections of rows into columns. */
function bruteForce(
  cost: Float64Array,
  rows: number,
  columns: number,
  row = 0,
  taken = new Set<number>(),
): number {
  if (row === rows) return 0;
  let least = Infinity;
  for (let column = 0; column < columns; column++) {
    if (taken.has(column)) continue;
    const rest = bruteForce(cost, rows, columns, row + 1, new Set([...taken, column]));
    least = Math.min(least, cost[row * columns + column]! + rest);
  }
  return least;
}

Deno.test("hungarian() finds the least total cost, also with more columns than rows and with ties", () => {
  for (const [rows, columns] of [[1, 1], [1, 4], [3, 3], [4, 4], [3, 6], [5, 6]] as const) {
    for (let seed = 0; seed < 20; seed++) {
      const cost = gaussians(rows * columns, seed).map((x) => seed % 2 ? x : Math.round(x));
      const chosen = hungarian(cost, rows, columns);
      assertEquals(new Set(chosen).size, rows, "distinct columns");
      assert(chosen.every((column) => column >= 0 && column < columns));
      const total = chosen.reduce((sum, column, row) => sum + cost[row * columns + column]!, 0);
      assertAlmostEquals(total, bruteForce(cost, rows, columns), 1e-12);
    }
  }
});
