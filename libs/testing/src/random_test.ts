import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { gaussians, seeded, uniforms } from "@lora-loom/testing";

Deno.test("seeded() repeats itself for a seed and differs between seeds", () => {
  const take = (seed: number) => {
    const random = seeded(seed);
    return Array.from({ length: 5 }, () => random());
  };
  assertEquals(take(7), take(7));
  assertNotEquals(take(7), take(8));
  assert(take(7).every((x) => x >= 0 && x < 1));
});

Deno.test("gaussians() has mean 0, variance 1 and no heavy tails", () => {
  const count = 20000;
  const x = gaussians(count, 3);
  const moment = (power: number) => x.reduce((sum, value) => sum + value ** power, 0) / count;
  // Six standard errors of each moment of a normal sample of this size.
  assert(Math.abs(moment(1)) < 6 / Math.sqrt(count));
  assert(Math.abs(moment(2) - 1) < 6 * Math.sqrt(2 / count));
  assert(Math.abs(moment(4) - 3) < 6 * Math.sqrt(96 / count));
  assert(x.every(Number.isFinite));
});

Deno.test("uniforms() fills [-1, 1) evenly", () => {
  const x = uniforms(20000, 5);
  assert(x.every((value) => value >= -1 && value <= 1));
  // Four quarters of the interval, each within six standard deviations of its share.
  for (let quarter = 0; quarter < 4; quarter++) {
    const count = x.filter((value) => Math.floor(2 * (value + 1)) === quarter).length;
    assert(Math.abs(count - 5000) < 6 * Math.sqrt(20000 * 0.25 * 0.75));
  }
  assertEquals(x, uniforms(20000, 5));
});
