import { assert, assertEquals, assertGreater, assertLessOrEqual, assertThrows } from "@std/assert";
import { MergeError } from "../errors.ts";
import { checkRows, fittingSplices } from "./check_rows.ts";
import type { CalibrationSplit } from "./rows.ts";
import type { Session } from "./session.ts";

/** A model that reads ten tokens; every word is one. */
const SESSION = {
  model: { maxPositions: 10 },
  tokenizer: { encode: (text: string) => new Uint32Array(text.split(" ").filter((word) => word).length) },
} as unknown as Session;

const words = (count: number) => "w ".repeat(count).trim();

function failure(split: Partial<CalibrationSplit>): MergeError {
  const whole = { calibration: [], heldOut: [], ...split };
  return assertThrows(() => checkRows(SESSION, "rows.jsonl", whole, 4), MergeError);
}

Deno.test("checkRows() takes what fits to the last position, the answer included", () => {
  const calibration = [{ text: words(6), isPrompt: true }, { text: words(10), isPrompt: false }];
  checkRows(SESSION, "rows.jsonl", { calibration, heldOut: [words(6)] }, 4);
});

Deno.test("checkRows() names the file and shows the row that is too long, or that says nothing", () => {
  const prompt = failure({ calibration: [{ text: words(7), isPrompt: true }] });
  assertEquals([prompt.code, prompt.where, prompt.blame], ["sequence_too_long", "rows.jsonl", "request"]);
  assert(prompt.message.includes(`7 tokens and its answer up to 4, the model reads 10: "${words(7)}"`));
  assertEquals(failure({ calibration: [{ text: words(11), isPrompt: false }] }).code, "sequence_too_long");
  assertEquals(failure({ heldOut: [words(7)] }).code, "sequence_too_long");
  assertEquals(failure({ calibration: [{ text: " ", isPrompt: false }] }).code, "empty_row");
});

Deno.test("fittingSplices() leaves out splices that grew longer than the model reads", () => {
  const prompts = [6, 5, 6].map((length, index) => Uint32Array.from({ length }, (_, i) => 10 * index + i));
  const options = { count: 20, seed: 1 };
  const all = fittingSplices(SESSION, prompts, { ...options, maxNewTokens: -100 });
  const fitting = fittingSplices(SESSION, prompts, { ...options, maxNewTokens: 4 });
  assertGreater(all.length, fitting.length);
  assertGreater(fitting.length, 0);
  for (const { length } of fitting) assertLessOrEqual(length, 6);
});
