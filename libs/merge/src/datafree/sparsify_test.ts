import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { matrixEntries } from "./entries.ts";
import { keepAtRandom, keepByMagnitude, keepLargest, magnitudeLimit, type Sparsifier } from "./sparsify.ts";
import { EntryRandom } from "./threefry.ts";

function applied(sparsifier: Sparsifier, values: Float64Array): number[] {
  const out = values.slice();
  sparsifier.apply(out, 0);
  return [...out];
}

Deno.test("keepLargest() keeps exactly the largest magnitudes, of equal ones the first", () => {
  const values = Float64Array.of(3, -1, 0, 2, -3, 2, 2, -0.5);
  const entries = matrixEntries(values, 2, 4);
  assertEquals(applied(keepLargest(entries, 0.5), values), [3, 0, 0, 2, -3, 2, 0, 0]);
  assertEquals(applied(keepLargest(entries, 0.125), values), [3, 0, 0, 0, 0, 0, 0, 0]);
  assertEquals(applied(keepLargest(entries, 0.1), values), [0, 0, 0, 0, 0, 0, 0, 0]);
  assertEquals(applied(keepLargest(entries, 1), values), [...values]);
});

Deno.test("magnitudeLimit() agrees with sorting, also for tiny, huge, equal and zero values", () => {
  const value = fc.oneof(
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.constantFrom(0, -0, 1, -1, 1e-310, -1e300),
  );
  fc.assert(
    fc.property(fc.array(value, { minLength: 1, maxLength: 60 }), fc.nat(), (list, seed) => {
      const values = Float64Array.from(list);
      const count = 1 + seed % values.length;
      const { limit, ties } = magnitudeLimit(matrixEntries(values, 1, values.length), count);
      const sorted = list.map(Math.abs).sort((x, y) => y - x);
      assertEquals(limit, sorted[count - 1]);
      assertEquals(ties, count - sorted.filter((other) => other > limit).length);
    }),
    { seed: 5 },
  );
});

Deno.test("keepAtRandom() and keepByMagnitude() take tiles in any size", () => {
  const values = Float64Array.from({ length: 60 }, (_, i) => Math.sin(i + 1));
  const makers = [
    () => keepAtRandom(new EntryRandom(1, "m", 0, "delta"), 0.5),
    () => keepByMagnitude(new EntryRandom(1, "m", 0, "delta"), 6, 0.5, 0.3),
  ];
  for (const make of makers) {
    const whole = applied(make(), values);
    const parts = values.slice();
    const sparsifier = make();
    for (const [from, to] of [[0, 12], [12, 18], [18, 60]] as const) {
      sparsifier.apply(parts.subarray(from, to), from);
    }
    assertEquals([...parts], whole);
    assert(whole.some((value) => value === 0) && whole.some((value) => value !== 0));
  }
});
