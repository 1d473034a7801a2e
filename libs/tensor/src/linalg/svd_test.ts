import { assert, assertEquals, assertThrows } from "@std/assert";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import { TensorError } from "../errors.ts";
import { flipped, identity, product, scaledProduct } from "./oracle_for_tests.ts";
import { singularValues, svd } from "./svd.ts";

function checkSvd(matrix: Float64Array, m: number, n: number) {
  const r = Math.min(m, n);
  const { values, left, right } = svd(matrix, m, n);
  assertRelativelyClose(product(left, flipped(left, r, m), r, m, r), identity(r), 1e-13, "left:");
  assertRelativelyClose(product(right, flipped(right, r, n), r, n, r), identity(r), 1e-13, "right:");
  assertRelativelyClose(
    scaledProduct(flipped(left, r, m), values, right, m, n),
    matrix,
    1e-13,
    "reconstruction:",
  );
  values.forEach((x, i) => assert(x >= 0 && (i === 0 || x <= values[i - 1]!), "descending, not negative"));
  assertRelativelyClose(singularValues(matrix, m, n), values, 1e-13, "values alone:");
  return values;
}

Deno.test("svd() reconstructs random matrices of every small shape, tall and wide", () => {
  for (let m = 1; m <= 12; m++) {
    for (let n = 1; n <= 12; n++) checkSvd(gaussians(m * n, 100 * m + n), m, n);
  }
  checkSvd(gaussians(90 * 40, 1), 90, 40);
});

Deno.test("svd() keeps its vectors orthonormal when the rank is deficient", () => {
  for (const [m, n, rank] of [[20, 20, 1], [30, 20, 7], [20, 30, 19], [9, 9, 3]] as const) {
    const matrix = product(gaussians(m * rank, m), gaussians(rank * n, n), m, rank, n);
    const values = checkSvd(matrix, m, n);
    assert(values[rank - 1]! > 1e-3 * values[0]! / rank);
    for (let i = rank; i < values.length; i++) assert(values[i]! <= 1e-14 * values[0]!, `value ${i}`);
  }
});

Deno.test("svd() handles zeros on the bidiagonal's diagonal, at its end, and everywhere", () => {
  checkSvd(Float64Array.of(1, 2, 0, 0, 0, 3, 0, 0, 4), 3, 3);
  checkSvd(Float64Array.of(1, 2, 0, 0, 5, 3, 0, 0, 0), 3, 3);
  checkSvd(Float64Array.of(0, 1, 0, 0, 0, 1, 0, 0, 0), 3, 3);
  checkSvd(new Float64Array(12), 4, 3);
  checkSvd(new Float64Array(12).fill(1), 3, 4);
});

Deno.test("svd() finds a graded spectrum, repeated values and extreme scales", () => {
  const n = 16;
  const u = svd(gaussians(n * n, 5), n, n).left;
  const v = svd(gaussians(n * n, 6), n, n).right;
  for (
    const value of [(i: number) => 10 ** -i, (i: number) => (i < 8 ? 2 : 1), (i: number) => 1e180 / (i + 1)]
  ) {
    const wanted = Float64Array.from({ length: n }, (_, i) => value(i));
    const found = svd(scaledProduct(u, wanted, v, n, n), n, n).values;
    wanted.forEach((x, i) => assert(Math.abs(found[i]! - x) <= 1e-14 * wanted[0]!, `${found[i]} for ${x}`));
  }
});

Deno.test("svd() matches a closed form", () => {
  // [[3, 0], [4, 5]] has the singular values 3√5 and √5.
  assertRelativelyClose(
    svd(Float64Array.of(3, 0, 4, 5), 2, 2).values,
    Float64Array.of(3 * Math.sqrt(5), Math.sqrt(5)),
    1e-15,
  );
});

Deno.test("svd() refuses NaN and wrong sizes", () => {
  assertEquals(assertThrows(() => svd(Float64Array.of(1, Infinity), 1, 2), TensorError).code, "not_finite");
  assertEquals(
    assertThrows(() => singularValues(new Float64Array(5), 2, 2), TensorError).code,
    "shape_mismatch",
  );
});
