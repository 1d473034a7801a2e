import { assertEquals, assertStringIncludes } from "@std/assert";
import type { Stage } from "@lora-loom/iteris";
import { fewKeptOut, withoutAnswers } from "./calibration_warnings.ts";

const stage = (reads?: "prompt" | "answer"): Stage => ({
  index: 0,
  name: "stage",
  sites: [],
  ...(reads ? { reads } : {}),
});
const text = { tokens: Uint32Array.of(1, 2), answerStart: 2 };
const answered = { tokens: Uint32Array.of(1, 2), answerStart: 1 };

Deno.test("withoutAnswers() warns of texts where a decoder reads answers alone, and nowhere else", () => {
  const tasks = [{ name: "a", sequences: [text, answered] }, { name: "b", sequences: [answered] }];
  const warnings = withoutAnswers({ stages: [stage("prompt"), stage("answer")] }, tasks);
  assertEquals(warnings.map(({ code, where }) => [code, where]), [["texts_without_answers", "a"]]);
  assertStringIncludes(warnings[0]!.message, "1 of the 2 rows of a");
  assertEquals(withoutAnswers({ stages: [stage()] }, tasks), []);
});

Deno.test("fewKeptOut() warns of tasks with fewer prompts than were asked for", () => {
  const prompts = [text.tokens];
  const heldOut = [{ name: "a", prompts, answers: prompts }, { name: "b", prompts: [], answers: [] }];
  assertEquals(fewKeptOut(heldOut, 1).map(({ where }) => where), ["b"]);
  assertEquals(fewKeptOut(heldOut, 0), []);
});
