import { assertEquals } from "@std/assert";
import { bestCheck, hasStalled, type RefinementHistory } from "./history.ts";

function history(...means: number[]): RefinementHistory {
  const checks = means.map((mean, index) => ({ step: 10 * index, agreement: { tasks: {}, mean } }));
  return { losses: [], stateLosses: [], checks };
}

Deno.test("bestCheck() takes the highest agreement, the latest of equals", () => {
  assertEquals(bestCheck(history(0.5, 0.7, 0.6, 0.7, 0.65))?.step, 30);
  assertEquals(bestCheck(history()), undefined);
});

Deno.test("hasStalled() counts the checks since the best one", () => {
  assertEquals(hasStalled(history(0.5, 0.7, 0.6), 2), false);
  assertEquals(hasStalled(history(0.5, 0.7, 0.6, 0.69), 2), true);
  assertEquals(hasStalled(history(0.5, 0.7, 0.6, 0.7), 2), false);
  assertEquals(hasStalled(history(), 1), false);
});
