import { assert, assertEquals, assertThrows } from "@std/assert";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import { TensorError } from "../errors.ts";
import { flipped, identity, product, scaledProduct } from "./oracle_for_tests.ts";
import { symmetricEigen, symmetricEigenvalues } from "./symmetric_eigen.ts";

function checkEigen(matrix: Float64Array, n: number) {
  const { values, vectors } = symmetricEigen(matrix, n);
  const columns = flipped(vectors, n, n);
  assertRelativelyClose(product(vectors, columns, n, n, n), identity(n), 1e-13, "orthonormal:");
  assertRelativelyClose(scaledProduct(columns, values, vectors, n, n), matrix, 1e-13, "reconstruction:");
  for (let i = 1; i < n; i++) assert(values[i - 1]! >= values[i]!, "descending");
  assertRelativelyClose(symmetricEigenvalues(matrix, n), values, 1e-13, "values alone:");
  return values;
}

Deno.test("symmetricEigen() reconstructs random Gram matrices of every small size", () => {
  for (let n = 1; n <= 24; n++) {
    const x = gaussians(n * n, n);
    checkEigen(product(x, flipped(x, n, n), n, n, n), n);
  }
});

Deno.test("symmetricEigen() handles indefinite, singular, graded and repeated spectra", () => {
  const n = 30;
  const basis =
    symmetricEigen(product(gaussians(n * n, 1), flipped(gaussians(n * n, 1), n, n), n, n, n), n).vectors;
  const spectra: Record<string, (i: number) => number> = {
    indefinite: (i) => i - 14.5,
    rankThree: (i) => (i < 3 ? 5 - i : 0),
    graded: (i) => 10 ** -i,
    clustered: (i) => 1 + Math.floor(i / 10) + 1e-15 * i,
    equal: () => 7,
    huge: (i) => 1e200 * (i + 1),
    tiny: (i) => 1e-200 * (i + 1),
  };
  for (const [name, value] of Object.entries(spectra)) {
    const wanted = Float64Array.from({ length: n }, (_, i) => value(i));
    const matrix = scaledProduct(flipped(basis, n, n), wanted, basis, n, n);
    const found = symmetricEigen(matrix, n).values;
    const largest = Math.max(...wanted.map(Math.abs));
    wanted.sort().reverse().forEach((x, i) =>
      assert(Math.abs(found[i]! - x) <= 1e-13 * largest, `${name} ${i}`)
    );
  }
});

Deno.test("symmetricEigen() takes zero, diagonal and already tridiagonal matrices", () => {
  assertEquals([...symmetricEigen(new Float64Array(16), 4).values], [0, 0, 0, 0]);
  assertEquals([...checkEigen(Float64Array.of(1, 0, 0, 0, 3, 0, 0, 0, 2), 3)], [3, 2, 1]);
  // The second-difference matrix has the eigenvalues 2 − 2cos(πj/(n + 1)).
  const n = 50;
  const matrix = identity(n).map((x, index) =>
    2 * x - (Math.abs(index % n - Math.floor(index / n)) === 1 ? 1 : 0)
  );
  const expected = Float64Array.from({ length: n }, (_, i) => 2 - 2 * Math.cos(Math.PI * (n - i) / (n + 1)));
  assertRelativelyClose(checkEigen(matrix, n), expected, 1e-14);
});

Deno.test("symmetricEigen() reads the lower triangle alone", () => {
  const values = symmetricEigen(Float64Array.of(2, 99, 1, 2), 2).values;
  assertRelativelyClose(values, Float64Array.of(3, 1), 1e-15);
});

Deno.test("symmetricEigen() refuses NaN and wrong sizes", () => {
  assertEquals(assertThrows(() => symmetricEigen(Float64Array.of(NaN), 1), TensorError).code, "not_finite");
  assertEquals(
    assertThrows(() => symmetricEigen(new Float64Array(3), 2), TensorError).code,
    "shape_mismatch",
  );
});
