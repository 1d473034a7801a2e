import { assert, assertEquals, assertThrows } from "@std/assert";
import { assertRelativelyClose, gaussians, relativeError } from "@lora-loom/testing";
import { TensorError } from "../errors.ts";
import { flipped, identity, product } from "./oracle_for_tests.ts";
import { truncateFromGrams } from "./truncate_from_grams.ts";

function grams(a: Float64Array, b: Float64Array, n: number, dIn: number, dOut: number) {
  return {
    gramA: product(a, flipped(a, n, dIn), n, dIn, n),
    gramB: product(flipped(b, dOut, n), b, n, dOut, n),
  };
}

function truncated(a: Float64Array, b: Float64Array, n: number, dIn: number, dOut: number, k: number) {
  const truncation = truncateFromGrams({ ...grams(a, b, n, dIn, dOut), n, k });
  const small = product(truncation.p, a, truncation.rank, n, dIn);
  const tall = product(b, truncation.q, dOut, n, truncation.rank);
  return { ...truncation, small, tall, delta: product(tall, small, dOut, truncation.rank, dIn) };
}

Deno.test("truncateFromGrams() gives the product itself at full rank", () => {
  const [n, dIn, dOut] = [6, 20, 15];
  const a = gaussians(n * dIn, 1), b = gaussians(dOut * n, 2);
  const { delta, rank, dropped } = truncated(a, b, n, dIn, dOut, n);
  assertEquals(rank, n);
  assertEquals(dropped.length, 0);
  assertRelativelyClose(delta, product(b, a, dOut, n, dIn), 1e-13);
});

Deno.test("truncateFromGrams() attains the error of Eckart and Young and balances the factors", () => {
  // A product whose singular values are known: orthonormal rows and columns from cosines, scaled by 2⁻ⁱ.
  const [n, d] = [5, 16];
  const cosines = (i: number, j: number) =>
    Math.sqrt(2 / d) * Math.cos(Math.PI * (i + 1) * (2 * j + 1) / (2 * d));
  const sigma = (i: number) => 2 ** -i;
  const mix = gaussians(n * n, 3);
  const a = Float64Array.from(
    { length: n * d },
    (_, x) => cosines(Math.floor(x / d), x % d) * sigma(Math.floor(x / d)),
  );
  const b = Float64Array.from({ length: d * n }, (_, x) => cosines((x % n) + 7, Math.floor(x / n)));
  const delta = product(b, a, d, n, d);
  // Appending the rows M·A with columns 0 leaves the product alone and makes the Gram matrices singular.
  const wideA = Float64Array.from([...a, ...product(mix, a, n, n, d)]);
  const wideB = Float64Array.from(
    { length: d * 2 * n },
    (_, x) => (x % (2 * n) < n ? b[Math.floor(x / (2 * n)) * n + x % (2 * n)]! : 0),
  );
  for (let k = 1; k <= n; k++) {
    const result = truncated(wideA, wideB, 2 * n, d, d, k);
    assertEquals(result.rank, k);
    let tail = 0, all = 0;
    for (let i = 0; i < n; i++) {
      all += sigma(i) ** 2;
      if (i >= k) tail += sigma(i) ** 2;
    }
    const error = relativeError(result.delta, delta);
    assert(Math.abs(error - Math.sqrt(tail / all)) < 1e-13, `k = ${k}: ${error}`);
    for (let i = 0; i < k; i++) {
      assert(Math.abs(result.sigma[i]! - sigma(i)) < 1e-13);
      let row = 0, column = 0;
      for (let j = 0; j < d; j++) {
        row += result.small[i * d + j]! ** 2;
        column += result.tall[j * k + i]! ** 2;
      }
      assert(Math.abs(row - sigma(i)) < 1e-13 && Math.abs(column - sigma(i)) < 1e-13, "balanced");
    }
  }
});

Deno.test("truncateFromGrams() returns fewer dimensions when the product has fewer", () => {
  const [n, dIn, dOut] = [8, 3, 20];
  const a = gaussians(n * dIn, 1), b = gaussians(dOut * n, 2);
  const { delta, rank } = truncated(a, b, n, dIn, dOut, 8);
  assertEquals(rank, 3);
  assertRelativelyClose(delta, product(b, a, dOut, n, dIn), 1e-13);
  assertEquals(truncateFromGrams({ gramA: new Float64Array(4), gramB: identity(2), n: 2, k: 2 }).rank, 0);
});

Deno.test("truncateFromGrams() refuses ranks outside 1…n", () => {
  for (const k of [0, 3, 1.5]) {
    const error = assertThrows(
      () => truncateFromGrams({ gramA: identity(2), gramB: identity(2), n: 2, k }),
      TensorError,
    );
    assertEquals(error.code, "rank_out_of_range");
  }
});

Deno.test("truncateFromGrams() stays accurate when terms are split very unevenly between the factors", () => {
  const [n, d] = [6, 16];
  const a = gaussians(n * d, 1), b = gaussians(d * n, 2);
  const expected = truncated(a, b, n, d, d, 3).delta;
  const uneven = (i: number) => 10 ** (3 * i - 8);
  const skewedA = a.map((x, index) => x * uneven(Math.floor(index / d)));
  const skewedB = b.map((x, index) => x / uneven(index % n));
  assertRelativelyClose(truncated(skewedA, skewedB, n, d, d, 3).delta, expected, 1e-13);
});
