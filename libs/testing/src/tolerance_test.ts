import { assertAlmostEquals, assertEquals, AssertionError, assertThrows } from "@std/assert";
import {
  assertDotProductsClose,
  assertRelativelyClose,
  frobeniusNorm,
  gaussians,
  relativeError,
} from "@lora-loom/testing";

Deno.test("relativeError() is the distance over the norm of what is expected", () => {
  assertEquals(frobeniusNorm([3, 4]), 5);
  assertAlmostEquals(relativeError([3, 4.5], [3, 4]), 0.1);
  assertEquals(relativeError([0.5], [0]), 0.5);
  assertThrows(() => relativeError([1], [1, 2]), AssertionError, "lengths differ");
});

Deno.test("assertRelativelyClose() accepts the tolerance itself and refuses more, and NaN", () => {
  assertRelativelyClose([1.5], [1], 0.5);
  assertThrows(() => assertRelativelyClose([1.6], [1], 0.5, "gemm"), AssertionError, "gemm relative error");
  assertThrows(() => assertRelativelyClose([NaN], [1], 0.5), AssertionError);
});

Deno.test("assertDotProductsClose() accepts float32 accumulation and refuses half precision", () => {
  const k = 129;
  const [a, b] = [gaussians(k, 1), gaussians(k, 2)];
  let [exact, single, half, magnitude] = [0, 0, 0, 0];
  for (let i = 0; i < k; i++) {
    const [x, y] = [Math.fround(a[i]!), Math.fround(b[i]!)];
    exact += x * y;
    magnitude += Math.abs(x * y);
    single = Math.fround(single + Math.fround(x * y));
    half = Math.f16round(half + Math.f16round(x * y));
  }
  assertDotProductsClose([single], [exact], [magnitude], k);
  assertThrows(() => assertDotProductsClose([half], [exact], [magnitude], k), AssertionError, "entry 0");
  assertThrows(() => assertDotProductsClose([NaN], [exact], [magnitude], k), AssertionError);
});
