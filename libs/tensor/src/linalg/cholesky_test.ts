import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import { TensorError } from "../errors.ts";
import { cholesky, choleskySolve } from "./cholesky.ts";
import { flipped, identity, product } from "./oracle_for_tests.ts";

function positiveDefinite(n: number): Float64Array<ArrayBuffer> {
  const x = gaussians(n * n, n);
  const gram = product(x, flipped(x, n, n), n, n, n);
  const ones = identity(n);
  return gram.map((value, index) => value + ones[index]!);
}

Deno.test("cholesky() reconstructs the matrix at sizes around its blocks, and is lower triangular", () => {
  for (const n of [1, 2, 3, 5, 63, 64, 65, 66, 67, 68, 129, 150]) {
    const matrix = positiveDefinite(n);
    const lower = cholesky(matrix, n);
    assertRelativelyClose(product(lower, flipped(lower, n, n), n, n, n), matrix, 1e-14, `n = ${n}:`);
    for (let i = 0; i < n; i++) for (let j = i + 1; j < n; j++) assertEquals(lower[i * n + j], 0);
  }
});

Deno.test("cholesky() reads the lower triangle alone and leaves its input as it was", () => {
  const matrix = Float64Array.of(4, 99, 2, 5);
  assertEquals([...cholesky(matrix, 2)], [2, 0, 1, 2]);
  assertEquals([...matrix], [4, 99, 2, 5]);
});

Deno.test("cholesky() names the pivot when the matrix is not positive definite", () => {
  const matrix = positiveDefinite(100);
  matrix[80 * 100 + 80] = -1;
  const error = assertThrows(() => cholesky(matrix, 100), TensorError);
  assertEquals(error.code, "not_positive_definite");
  assertStringIncludes(error.message, "pivot 80 is -");
  assertThrows(() => cholesky(Float64Array.of(NaN), 1), TensorError, "pivot 0 is NaN");
  assertThrows(() => cholesky(Float64Array.of(1, 1, 1, 1), 2), TensorError, "pivot 1 is 0");
});

Deno.test("choleskySolve() solves for one and for many right-hand sides", () => {
  for (const [n, columns] of [[1, 1], [2, 3], [7, 1], [40, 65], [67, 130]] as const) {
    const matrix = positiveDefinite(n);
    const x = gaussians(n * columns, 9);
    const found = choleskySolve(cholesky(matrix, n), n, product(matrix, x, n, n, columns), columns);
    // The smallest eigenvalue is at least 1, the largest about 4n.
    assertRelativelyClose(found, x, 1e-12, `n = ${n}:`);
  }
});
