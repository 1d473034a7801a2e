import { assert, assertAlmostEquals, assertEquals, assertNotEquals } from "@std/assert";
import { type Member, minibatch, pack } from "./minibatch.ts";
import type { TaskData } from "./task_data.ts";

const DECODER = [undefined, undefined] as const;
const ENCODER_DECODER = ["prompt", "answer"] as const;

function tokenCount(members: readonly Member[]): number {
  return members.reduce((sum, { sequence }) => sum + sequence.tokens.length, 0);
}

/** Sequences of `length` tokens whose answer is the last two of them. */
function task(name: string, count: number, length = 6, weight = 1): TaskData {
  const sequences = Array.from({ length: count }, (_, i) => ({
    tokens: Uint32Array.from({ length: length + (i % 3) }, () => i),
    answerStart: length + (i % 3) - 2,
  }));
  return { name, weight, sequences, heldOut: { name, prompts: [], answers: [] } };
}

Deno.test("minibatch() goes through all sequences of a task before it takes one again", () => {
  const tasks = [task("a", 10), task("b", 4)];
  const drawn = [1, 2, 3, 4, 5].map((step) => minibatch(tasks, { sequences: 2 }, 42, step));
  const indicesOf = (which: number) =>
    drawn.flat().filter((member) => member.task === which).map(({ index }) => index);
  assertEquals([...indicesOf(0)].sort((x, y) => x - y), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assertEquals([...indicesOf(1).slice(0, 4)].sort((x, y) => x - y), [0, 1, 2, 3]);
});

Deno.test("minibatch() depends on the seed and the step alone", () => {
  const tasks = [task("a", 30), task("b", 30)];
  const indices = (seed: number, step: number) =>
    minibatch(tasks, { sequences: 12 }, seed, step).map(({ index }) => index);
  assertEquals(indices(42, 7), indices(42, 7));
  assertNotEquals(indices(42, 7), indices(43, 7));
  assertNotEquals(indices(42, 7).slice(0, 12), indices(42, 7).slice(12), "tasks are shuffled on their own");
});

Deno.test("minibatch() takes all sequences of a task that has too few", () => {
  const members = minibatch([task("a", 3)], { sequences: 12 }, 42, 5);
  assertEquals(members.map(({ index }) => index).sort(), [0, 1, 2]);
});

Deno.test("pack() weighs answers 1, other tokens ρ and tasks by their weight, to a sum of 1", () => {
  const tasks = [task("a", 1, 6, 0.5), task("b", 1, 6, 1.5)];
  const members = minibatch(tasks, { sequences: 1 }, 42, 1);
  const [batch, ...rest] = pack(members, tasks, 0.1, 1000, DECODER);
  assertEquals(rest, []);
  // Positions 3 and 4 of 6 predict the answer's two tokens.
  const weights = batch!.weights.get(undefined)!;
  const unit = weights[3]!;
  const expected = [0.1, 0.1, 0.1, 1, 1, 0.1];
  [...expected, ...expected.map((weight) => 3 * weight)].forEach((weight, i) =>
    assertAlmostEquals(weights[i]!, weight * unit, 1e-15)
  );
  assertAlmostEquals(weights.reduce((sum, weight) => sum + weight, 0), 1, 1e-14);
  assertEquals([...batch!.answerRows], [3, 4, 9, 10]);
  [0.125, 0.125, 0.375, 0.375].forEach((share, i) =>
    assertAlmostEquals(batch!.answerShares[i]!, share, 1e-15)
  );
});

Deno.test("pack() weighs an encoder's tokens alike, and a decoder's by what they predict, to a sum of 1 each", () => {
  const tasks = [task("a", 1, 6, 0.5), task("b", 1, 6, 1.5)];
  const [batch] = pack(minibatch(tasks, { sequences: 1 }, 42, 1), tasks, 0.1, 1000, ENCODER_DECODER);
  // Prompts of four tokens; the start token and the first of two answer tokens predict one each.
  const close = (found: Float64Array, expected: readonly number[]) => {
    assertEquals(found.length, expected.length);
    found.forEach((weight, i) => assertAlmostEquals(weight, expected[i]!, 1e-15));
  };
  const quarter = 1 / 4, each = quarter / 4;
  close(batch!.weights.get("prompt")!, [each, each, each, each, 3 * each, 3 * each, 3 * each, 3 * each]);
  close(batch!.weights.get("answer")!, [0.125, 0.125, 0, 0.375, 0.375, 0]);
  assertEquals([...batch!.answerRows], [0, 1, 3, 4]);
  close(batch!.answerShares, [0.125, 0.125, 0.375, 0.375]);
});

Deno.test("pack() cuts a minibatch at its limit without changing any weight", () => {
  const tasks = [task("a", 12), task("b", 12)];
  const members = minibatch(tasks, { sequences: 12 }, 1, 1);
  for (const layerReads of [DECODER, ENCODER_DECODER]) {
    const whole = pack(members, tasks, 0.3, Infinity, layerReads),
      cut = pack(members, tasks, 0.3, 20, layerReads);
    assertEquals(whole.length, 1);
    assert(cut.length > 5 && cut.every(({ members }) => tokenCount(members) <= 20));
    for (const reads of layerReads) {
      assertEquals(cut.flatMap(({ weights }) => [...weights.get(reads)!]), [
        ...whole[0]!.weights.get(reads)!,
      ]);
    }
    assertEquals(cut.flatMap(({ answerShares }) => [...answerShares]), [...whole[0]!.answerShares]);
    assertEquals(cut.flatMap(({ members }) => members), members);
  }
});
