import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { EntryRandom, threefry } from "./threefry.ts";

function words(key: readonly [number, number], low: number, high: number): number[] {
  const out = new Uint32Array(2);
  threefry(key, low, high, out);
  return [...out];
}

Deno.test("threefry() gives the known answers of its authors", () => {
  assertEquals(words([0, 0], 0, 0), [0x6b200159, 0x99ba4efe]);
  assertEquals(words([0xffffffff, 0xffffffff], 0xffffffff, 0xffffffff), [0x1cb996fc, 0xbb002be7]);
  assertEquals(words([0x13198a2e, 0x03707344], 0x243f6a88, 0x85a308d3), [0xc4923a9c, 0x483df7a0]);
});

Deno.test("EntryRandom gives an entry the same number in any order of asking", () => {
  const forwards = new EntryRandom(42, "layers.0.q_proj", 0, "delta");
  const backwards = new EntryRandom(42, "layers.0.q_proj", 0, "delta");
  const numbers = Array.from({ length: 9 }, (_, i) => forwards.at(i));
  assertEquals(Array.from({ length: 9 }, (_, i) => backwards.at(8 - i)).reverse(), numbers);
});

Deno.test("EntryRandom gives other numbers for another seed, module, adapter or tensor", () => {
  const first = (random: EntryRandom) => random.at(0);
  const reference = first(new EntryRandom(42, "q", 0, "delta"));
  assertNotEquals(first(new EntryRandom(43, "q", 0, "delta")), reference);
  assertNotEquals(first(new EntryRandom(42 + 2 ** 32, "q", 0, "delta")), reference);
  assertNotEquals(first(new EntryRandom(42, "k", 0, "delta")), reference);
  assertNotEquals(first(new EntryRandom(42, "q", 1, "delta")), reference);
  assertNotEquals(first(new EntryRandom(42, "q", 0, "A")), reference);
});

Deno.test("EntryRandom is uniform and has no correlation between neighbours", () => {
  const count = 1 << 16;
  const random = new EntryRandom(7, "layers.0.q_proj", 1, "delta");
  const bins = new Array<number>(16).fill(0);
  let covariance = 0, previous = random.at(0) - 0.5;
  for (let i = 0; i < count; i++) {
    const u = random.at(i);
    bins[Math.floor(u * 16)]!++;
    covariance += previous * (u - 0.5);
    previous = u - 0.5;
  }
  const expected = count / 16;
  const chiSquare = bins.reduce((sum, found) => sum + (found - expected) ** 2 / expected, 0);
  assert(
    chiSquare < 37.7,
    `χ² with 15 degrees of freedom is ${chiSquare}; 37.7 is exceeded once in a thousand`,
  );
  // The mean of `count` products of independent uniforms has standard deviation 1/(12√count).
  assert(Math.abs(covariance / count) < 4 / (12 * Math.sqrt(count)), `covariance ${covariance / count}`);
});
