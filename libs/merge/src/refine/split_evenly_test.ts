import { assert, assertEquals } from "@std/assert";
import { assertRelativelyClose, frobeniusNorm, gaussians } from "@lora-loom/testing";
import { splitEvenly } from "./split_evenly.ts";

function product(b: ArrayLike<number>, a: ArrayLike<number>, rank: number): number[] {
  const rows = b.length / rank, columns = a.length / rank;
  return Array.from({ length: rows * columns }, (_, at) => {
    let sum = 0;
    for (let r = 0; r < rank; r++) {
      sum += b[Math.floor(at / columns) * rank + r]! * a[r * columns + at % columns]!;
    }
    return sum;
  });
}

function rowNorms(a: Float64Array, rank: number): number[] {
  const columns = a.length / rank;
  return Array.from({ length: rank }, (_, r) => frobeniusNorm(a.subarray(r * columns, (r + 1) * columns)));
}

Deno.test("splitEvenly() keeps the delta and gives both factors the same singular values", () => {
  const [rows, columns, rank] = [9, 13, 4];
  // Far from even: B is a thousand times A.
  const a = gaussians(rank * columns, 1), b = gaussians(rows * rank, 2).map((value) => 1000 * value);
  const even = splitEvenly(a, b, rank);
  assertRelativelyClose(product(even.b, even.a, rank), product(b, a, rank), 1e-13);
  const transposedB = Float64Array.from(
    { length: rank * rows },
    (_, i) => even.b[(i % rows) * rank + Math.floor(i / rows)]!,
  );
  assertRelativelyClose(rowNorms(even.a, rank), rowNorms(transposedB, rank), 1e-12);
});

Deno.test("splitEvenly() leaves spare ranks unused but able to learn", () => {
  const [rows, columns, rank] = [7, 8, 4];
  const a = gaussians(rank * columns, 3), b = gaussians(rows * rank, 4);
  // Two of four ranks repeat the others, so the delta has rank 2.
  for (let i = 0; i < 2 * columns; i++) a[2 * columns + i] = a[i]!;
  const even = splitEvenly(a, b, rank);
  assertRelativelyClose(product(even.b, even.a, rank), product(b, a, rank), 1e-13);
  const unused = [2, 3].map((r) => Array.from({ length: rows }, (_, o) => even.b[o * rank + r]!));
  assertEquals(unused.flat().every((value) => value === 0), true);
  assert(
    rowNorms(even.a, rank).every((norm) => norm > 0.1),
    "their rows of A must not vanish: no gradient would reach B",
  );
});

Deno.test("splitEvenly() takes a delta of zeros", () => {
  const even = splitEvenly(new Float64Array(6), new Float64Array(10), 2);
  assertEquals([...even.b], new Array(10).fill(0));
  assert(even.a.every(Number.isFinite) && rowNorms(even.a, 2).every((norm) => norm > 0));
});
