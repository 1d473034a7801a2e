import { assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import { predictNeeds } from "./predict.ts";
import type { Budgets, Workload } from "./workload.ts";

const MIB = 2 ** 20;

/** One stage of one module, so that every term can be computed by hand. */
const WORK: Workload = {
  base: {
    stages: [{ sites: [{ module: "q", inFeatures: 10, outFeatures: 20, writesStream: false }] }],
    layers: 1,
    hiddenSize: 8,
    vocabularySize: 30,
    keyValueWidth: 6,
    parameters: 440,
    storedBytes: 880,
  },
  adapted: new Set(["q"]),
  adapterElements: 60,
  mergedElements: 30,
  tasks: [{ tokens: 50, longest: 5 }],
  answers: [],
  corrects: false,
  holdsOut: false,
  passes: 2,
  maxNewTokens: 3,
  residency: "streamed",
  device: { elementBytes: 4, onHost: false, packs: false, hostSolverLimit: 0 },
};
const BUDGETS: Budgets = { tokensPerChunk: 16, deviceBytes: 1000, hostBytes: 200, keyValueBytes: 48 };

Deno.test("predictNeeds() adds up what one stage of a streamed model takes", () => {
  const needs = predictNeeds(WORK, BUDGETS);
  assertEquals(needs.device_parts, {
    // Twice 60 and 30 numbers of 4 bytes, and a sixteenth more for the rounding of buffers, as everywhere.
    "adapters": 638,
    // 10 · 20 numbers of 4 bytes, and the same in 2 bytes while they are widened.
    "weights of a stage": 1275,
    // All that the budget allows of 2 · 50 · (10 + 8) numbers.
    "states of samples": 1063,
    // A chunk's 16 · (4 · 10 + 2 · 8 + 3 · 20) numbers beside two running sums of 10 · 10 and an adapter's weight of 10 · 20.
    "sums and solution": 9588,
  });
  assertEquals(needs.device_bytes, 638 + 1275 + 1063 + 9588);
  // Of 7200 bytes of states, 1000 wait on the device and 200 on the host.
  assertEquals(needs.scratch_bytes, 6000);
  // The program, 30 · 8 stored numbers of the vocabulary, and the states.
  assertEquals(needs.host_bytes, 768 * MIB + 480 + 200);
  assertEquals(needs.read_bytes, 2 * 880);
});

Deno.test("predictNeeds() counts resident weights whole and reads them once", () => {
  const needs = predictNeeds({ ...WORK, residency: "resident" }, BUDGETS);
  assertEquals(needs.device_parts["resident weights"], 4 * 440 * 17 / 16);
  assertEquals(needs.device_parts["weights of a stage"], undefined);
  assertEquals(needs.read_bytes, 880);
});

Deno.test("predictNeeds() counts a reading of all weights for every token of every group of answers", () => {
  const answers = [{ tokens: 7, prompts: 2, times: 4 }];
  const needs = predictNeeds({ ...WORK, answers }, BUDGETS);
  // 24 bytes of keys and values a token: four groups of two tokens, each three new tokens long.
  assertEquals(needs.read_bytes, 880 * (2 + 3 * 4 * 4));
  const large = predictNeeds({ ...WORK, answers, tasks: [{ tokens: 1, longest: 1 }] }, {
    ...BUDGETS,
    tokensPerChunk: 1,
    keyValueBytes: 24_000,
  });
  // Folded and plain weights; 7 tokens' keys and values; 7 · (3 · 8 + 2 · 20) activations; the head and two rows of logits.
  assertEquals(large.device_parts, {
    "adapters": 638,
    "weights that answer": 1700,
    "keys and values": 179,
    "activations": 1904,
    "logits": 1275,
  });
});

Deno.test("predictNeeds() puts the device's bytes on the host where the device is the host", () => {
  const there = predictNeeds(WORK, BUDGETS);
  const here = predictNeeds({ ...WORK, device: { ...WORK.device, onHost: true } }, BUDGETS);
  assertEquals(here.host_bytes, there.host_bytes + there.device_bytes + 768 * MIB);
});

Deno.test("predictNeeds() asks for more where solutions are dense, samples are kept out, or the system is large", () => {
  // Small chunks, so that the solution is the largest moment.
  const budgets = { ...BUDGETS, tokensPerChunk: 1 };
  const work = { ...WORK, tasks: [{ tokens: 50, longest: 1 }] };
  const solving = (change: Partial<Workload>) =>
    predictNeeds({ ...work, ...change }, budgets).device_parts["sums and solution"]!;
  // 3 · 10 · 10 for the moments, 5 · 10 · 10 for the system.
  assertEquals(solving({}), 4 * 800 * 17 / 16);
  // Two right-hand sides and ten vectors of 20 rows of 10.
  assertEquals(solving({ corrects: true }), 4 * (800 + 12 * 200) * 17 / 16);
  // Three sets of moments.
  assertEquals(solving({ holdsOut: true }), 4 * 1200 * 17 / 16);
  assertGreater(solving({ device: { ...WORK.device, packs: true } }), 512 * MIB);
});

Deno.test("predictNeeds() does not grow with the number of samples, but for temporary files", () => {
  const small = predictNeeds(WORK, BUDGETS);
  const large = predictNeeds({ ...WORK, tasks: [{ tokens: 5000, longest: 5 }] }, BUDGETS);
  assertEquals([large.device_bytes, large.host_bytes], [small.device_bytes, small.host_bytes]);
  assertEquals(large.scratch_bytes, 7200 * 100 - 1200);
  assertLessOrEqual(small.scratch_bytes, large.scratch_bytes);
});
