import { assertAlmostEquals, assertEquals } from "@std/assert";
import { seeded } from "@lora-loom/testing";
import { agreementOf, pairedDifference } from "./agreement.ts";

const hits = (text: string) => [...text].map((letter) => letter === "x");

Deno.test("agreementOf() gives shares of prompts by adapter and their mean, and nothing without prompts", () => {
  assertEquals(agreementOf({ one: hits("x..."), two: hits("xx") }), {
    tasks: { one: 0.25, two: 1 },
    mean: 0.625,
  });
  assertEquals(agreementOf({}), undefined);
});

Deno.test("pairedDifference() gives the mean of the differences by adapter, and nothing of what both have in common", () => {
  const both = { one: hits("xx.."), two: hits("x.x.") };
  assertEquals(pairedDifference(both, both), { mean: 0, standard_error: 0 });
  // Differences 0, 0, 1, 1 and 0, 0, −1, 0: variances 1/3 and 1/4 of a prompt, a fourth of that of their means.
  const { mean, standard_error } = pairedDifference(both, { one: hits("xxxx"), two: hits("x...") });
  assertAlmostEquals(mean, 0.125, 1e-15);
  assertAlmostEquals(standard_error, Math.sqrt((1 / 3 + 1 / 4) / 4) / 2, 1e-15);
});

Deno.test("pairedDifference() has the standard error that drawing the prompts again and again shows", () => {
  const random = seeded(1);
  const draw = () => {
    const before: boolean[] = [], after: boolean[] = [];
    for (let i = 0; i < 100; i++) {
      // Prompts that both answer, neither, or one of them.
      const kind = random();
      before.push(kind < 0.5);
      after.push(kind < 0.4 || kind > 0.85);
    }
    return pairedDifference({ task: before }, { task: after });
  };
  const draws = Array.from({ length: 2000 }, draw);
  const mean = draws.reduce((sum, draw) => sum + draw.mean, 0) / draws.length;
  const spread = Math.sqrt(draws.reduce((sum, draw) => sum + (draw.mean - mean) ** 2, 0) / draws.length);
  const told = draws.reduce((sum, { standard_error }) => sum + standard_error, 0) / draws.length;
  assertAlmostEquals(mean, 0.05, 0.003);
  assertAlmostEquals(told / spread, 1, 0.06);
});

Deno.test("pairedDifference() takes one prompt to say nothing about its error", () => {
  assertEquals(pairedDifference({ task: [false] }, { task: [true] }), { mean: 1, standard_error: 1 });
});
