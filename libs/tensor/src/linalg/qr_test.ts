import { assert, assertEquals, assertThrows } from "@std/assert";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import { TensorError } from "../errors.ts";
import { flipped, identity, product } from "./oracle_for_tests.ts";
import { qr } from "./qr.ts";

function checkQr(matrix: Float64Array, m: number, n: number) {
  const { q, r } = qr(matrix, m, n);
  assertRelativelyClose(product(flipped(q, m, n), q, n, m, n), identity(n), 1e-14, "orthonormal:");
  assertRelativelyClose(product(q, r, m, n, n), matrix, 1e-14, "reconstruction:");
  for (let i = 0; i < n; i++) {
    assert(r[i * n + i]! >= 0, "diagonal");
    for (let j = 0; j < i; j++) assertEquals(r[i * n + j], 0, "triangular");
  }
}

Deno.test("qr() factors random matrices of every small shape", () => {
  for (let m = 1; m <= 12; m++) {
    for (let n = 1; n <= m; n++) checkQr(gaussians(m * n, 100 * m + n), m, n);
  }
  checkQr(gaussians(200 * 30, 3), 200, 30);
});

Deno.test("qr() stays orthonormal for dependent and zero columns", () => {
  checkQr(Float64Array.of(1, 2, 0, 2, 4, 0, 3, 6, 0, 1, 2, 1), 4, 3);
  checkQr(new Float64Array(6), 3, 2);
});

Deno.test("qr() refuses a wide matrix", () => {
  assertEquals(assertThrows(() => qr(new Float64Array(6), 2, 3), TensorError).code, "shape_mismatch");
});
