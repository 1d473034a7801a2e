import { assertEquals, assertThrows } from "@std/assert";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import { TensorError } from "../errors.ts";
import { flipped, product } from "./oracle_for_tests.ts";
import { triangularSolve } from "./triangular_solve.ts";

/** A well-conditioned matrix: solving with either triangle must ignore the other. */
function full(n: number): Float64Array<ArrayBuffer> {
  return gaussians(n * n, n).map((x, index) => (index % (n + 1) === 0 ? 3 + Math.abs(x) : x / n));
}

function triangle(matrix: Float64Array, n: number, upper: boolean): Float64Array<ArrayBuffer> {
  return Float64Array.from(matrix, (x, index) => {
    const row = Math.floor(index / n), column = index % n;
    return (upper ? column >= row : column <= row) ? x : 0;
  });
}

Deno.test("triangularSolve() solves all four triangles at sizes around its blocks", () => {
  for (const n of [1, 2, 3, 4, 5, 6, 7, 8, 9, 33, 66]) {
    for (const columns of [1, 2, 63, 64, 65]) {
      const x = gaussians(n * columns, n + columns);
      for (const upper of [false, true]) {
        for (const transpose of [false, true]) {
          const t = triangle(full(n), n, upper);
          const rhs = product(transpose ? flipped(t, n, n) : t, x, n, n, columns);
          const found = triangularSolve(full(n), n, rhs, columns, { upper, transpose });
          assertRelativelyClose(
            found,
            x,
            1e-14,
            `n ${n}, columns ${columns}, upper ${upper}, transpose ${transpose}:`,
          );
        }
      }
    }
  }
});

Deno.test("triangularSolve() refuses a zero on the diagonal and wrong sizes", () => {
  const singular = assertThrows(
    () => triangularSolve(Float64Array.of(1, 0, 5, 0), 2, new Float64Array(2), 1),
    TensorError,
  );
  assertEquals(singular.code, "singular_matrix");
  const wrong = assertThrows(
    () => triangularSolve(Float64Array.of(1), 1, new Float64Array(2), 1),
    TensorError,
  );
  assertEquals(wrong.code, "shape_mismatch");
});
