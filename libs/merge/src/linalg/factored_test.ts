import { assertEquals, assertLess } from "@std/assert";
import { assertRelativelyClose, frobeniusNorm, gaussians } from "@lora-loom/testing";
import { combinationNorm, effectiveRank, type Factored, spectrum } from "./factored.ts";

function randomDelta(
  outFeatures: number,
  inFeatures: number,
  rank: number,
  scale: number,
  seed: number,
): Factored {
  return {
    outFeatures,
    inFeatures,
    rank,
    scale,
    a: gaussians(rank * inFeatures, seed),
    b: gaussians(outFeatures * rank, seed + 1),
  };
}

/** scale · B · A by the definition. */
function dense({ outFeatures, inFeatures, rank, scale, a, b }: Factored): Float64Array {
  return Float64Array.from({ length: outFeatures * inFeatures }, (_, index) => {
    const [o, i] = [Math.floor(index / inFeatures), index % inFeatures];
    let sum = 0;
    for (let r = 0; r < rank; r++) sum += b[o * rank + r]! * a[r * inFeatures + i]!;
    return scale * sum;
  });
}

const SHAPES: readonly (readonly [out: number, inFeatures: number, rank: number])[] = [
  [20, 30, 4],
  [30, 20, 4],
  [3, 40, 6],
  [40, 3, 6],
  [5, 5, 1],
];

Deno.test("combinationNorm() equals the dense norm when shapes are tall, wide or narrower than the rank", () => {
  for (const [out, inFeatures, rank] of SHAPES) {
    const [x, y] = [randomDelta(out, inFeatures, rank, 2, 1), randomDelta(out, inFeatures, rank + 1, 0.5, 9)];
    const [denseX, denseY] = [dense(x), dense(y)];
    const expected = frobeniusNorm(denseX.map((value, index) => value - 3 * denseY[index]!));
    assertRelativelyClose([combinationNorm([[x, 1], [y, -3]])], [expected], 1e-13, `${out} × ${inFeatures}`);
  }
  assertEquals(combinationNorm([]), 0);
});

Deno.test("combinationNorm() keeps the digits of a difference a billion times smaller than its parts", () => {
  const x = randomDelta(200, 300, 8, 1, 3);
  const tiny = randomDelta(200, 300, 1, 1e-9, 5);
  // The same delta as x + tiny, in other factors.
  const y: Factored = {
    ...x,
    rank: 9,
    a: Float64Array.from([...Array.from(x.a), ...Array.from(tiny.a)]),
    b: Float64Array.from({ length: 200 * 9 }, (_, index) => {
      const [o, r] = [Math.floor(index / 9), index % 9];
      return r < 8 ? x.b[o * 8 + r]! : 1e-9 * tiny.b[o]!;
    }),
  };
  assertRelativelyClose([combinationNorm([[x, 1], [y, -1]])], [frobeniusNorm(dense(tiny))], 1e-5);
});

Deno.test("combinationNorm() is rounding alone when the same delta is refactored", () => {
  const x = randomDelta(100, 120, 6, 1, 7);
  const rescaled: Factored = {
    ...x,
    scale: 4,
    a: Float64Array.from(x.a, (value) => value * 3),
    b: Float64Array.from(x.b, (value) => value / 12),
  };
  assertLess(combinationNorm([[x, 1], [rescaled, -1]]) / combinationNorm([[x, 1]]), 1e-14);
});

Deno.test("spectrum() finds the singular values that a delta was built from", () => {
  const values = [9, 4, 1e-3];
  // Columns of a Hadamard matrix are orthogonal with norm 2.
  const hadamard = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1]];
  const delta: Factored = {
    rank: 3,
    inFeatures: 4,
    outFeatures: 4,
    scale: 0.5,
    a: Float64Array.from(hadamard.flat()),
    b: Float64Array.from(
      { length: 12 },
      (_, index) => hadamard[(index % 3 + 1) % 3]![Math.floor(index / 3)]! * values[index % 3]! / 2,
    ),
  };
  assertRelativelyClose(spectrum(delta), values, 1e-14);
});

Deno.test("effectiveRank() counts equal singular values and ignores zeros", () => {
  assertRelativelyClose(
    [effectiveRank([2, 2, 2, 0]), effectiveRank([5]), effectiveRank([0, 0])],
    [3, 1, 0],
    1e-15,
  );
});
