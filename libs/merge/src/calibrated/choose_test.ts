import { assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import type { Parameters } from "../methods/method.ts";
import { type Candidate, candidates } from "./candidates.ts";
import { choose } from "./choose.ts";

const AUTO: Parameters = {
  alpha: 1e-4,
  token_weight: 1,
  splices: 0,
  samples: 50,
  tune: "none",
  metric: "auto",
};

/** Chooses where agreement on ten prompts is as given, in the order of trial; NaN fails. */
function choice(parameters: Parameters, agreements: readonly number[]) {
  const labels: string[] = [];
  const released: Candidate[] = [];
  const attempt = (candidate: Candidate, label: string) => {
    const mean = agreements[labels.push(label) - 1]!;
    if (Number.isNaN(mean)) return Promise.reject(new Error("out of memory"));
    return Promise.resolve({
      candidate,
      matches: { task: Array.from({ length: 10 }, (_, i) => i < 10 * mean) },
    });
  };
  const chosen = choose(candidates(parameters), attempt, ({ candidate }) => released.push(candidate));
  return { chosen, labels, released };
}

for (
  const [when, agreements, metric] of [
    ["better by more than chance", [0.4, 0.8], "output"],
    ["better by no more than chance", [0.5, 0.6], "none"],
    ["worse", [0.5, 0.4], "none"],
    ["equal", [0.5, 0.5], "none"],
  ] as const
) {
  Deno.test(`choose() keeps metric: ${metric} with metric: auto when agreement with the metric is ${when}`, async () => {
    const { chosen, released } = choice(AUTO, agreements);
    const { kept, tried } = await chosen;
    assertEquals(kept.candidate.metric, metric);
    assertEquals(released.map((loser) => loser.metric), [metric === "none" ? "output" : "none"]);
    const settings = { alpha: 1e-4, token_weight: 1, splices: 0 };
    const [none, output] = tried;
    assertEquals(tried, [
      { ...settings, metric: "none", agreement: agreements[0], difference: null, kept: metric === "none" },
      {
        ...settings,
        metric: "output",
        agreement: agreements[1],
        difference: output!.difference,
        kept: metric === "output",
      },
    ]);
    assertAlmostEquals(output!.difference!.mean, output!.agreement - none!.agreement, 1e-15);
  });
}

Deno.test("choose() goes from the metric back to a setting without when that agrees more at all", async () => {
  const [none, output] = candidates(AUTO);
  const order = [none!, output!, { ...none!, splices: 10 }];
  const hits = [2, 8, 9];
  const attempt = (candidate: Candidate) =>
    Promise.resolve({
      candidate,
      matches: { task: Array.from({ length: 10 }, (_, i) => i < hits[order.indexOf(candidate)]!) },
    });
  const { kept } = await choose(order, attempt, () => {});
  assertEquals(kept.candidate, order[2]);
});

Deno.test("choose() tries every setting of tune without and then with the metric", async () => {
  const agreements = [0.1, 0.2, 0.6, 0.2, 0.3, 0.1, 0.6, 0.2];
  const { chosen, labels, released } = choice({ ...AUTO, tune: "agreement" }, agreements);
  const { kept, tried } = await chosen;
  assertEquals(labels[5], "setting 6 of 8: ");
  assertEquals(tried.map(({ metric }) => metric), [
    ...new Array(4).fill("none"),
    ...new Array(4).fill("output"),
  ]);
  assertEquals([kept.candidate.tokenWeight, kept.candidate.metric], [1, "none"]);
  assertEquals(released.length, 7);
});

Deno.test("choose() names no setting where there is one, and releases what it has when the next fails", async () => {
  const single = choice({ ...AUTO, metric: "output" }, [0.5]);
  assertEquals((await single.chosen).kept.candidate.metric, "output");
  assertEquals([single.labels, single.released], [[""], []]);
  const failing = choice(AUTO, [0.5, NaN]);
  await assertRejects(() => failing.chosen, Error, "out of memory");
  assertEquals(failing.released.map(({ metric }) => metric), ["none"]);
});
