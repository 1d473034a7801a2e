import { assertDotProductsClose } from "@lora-loom/testing";
import { assertEquals, assertThrows } from "@std/assert";
import type { Device } from "../device.ts";
import { TensorError } from "../errors.ts";
import { openTestGpu, testOnEachDevice } from "../test_support/devices.ts";
import { products, randomMatrix, transposed, wideMatrix } from "../test_support/matrices.ts";
import { type ProductCase, runProduct } from "../test_support/product_cases.ts";
import { cast } from "./cast.ts";
import { gemm } from "./gemm.ts";

/** Runs gemm and checks every entry against its definition. */
async function check(device: Device, product: ProductCase) {
  const { actual, expected, magnitude } = await runProduct(device, product);
  assertDotProductsClose(actual, expected, magnitude, product.a.columns + 1);
}

const TRANSPOSES = [[false, false], [false, true], [true, false], [true, true]] as const;
const SIZES = [[1, 1, 1], [7, 63, 65], [65, 7, 129], [129, 65, 7], [1, 129, 63], [64, 32, 16], [
  136,
  68,
  20,
]] as const;

testOnEachDevice("gemm() is exact to rounding when sizes are odd, aligned or one", async (device) => {
  for (const [m, n, k] of SIZES) {
    for (const [transposeA, transposeB] of TRANSPOSES) {
      await check(device, { a: randomMatrix(m, k, 1), b: randomMatrix(k, n, 2), transposeA, transposeB });
    }
  }
});

testOnEachDevice("gemm() is exact to rounding when the result is large", async (device) => {
  const [a, b] = [randomMatrix(260, 12, 15), randomMatrix(12, 132, 16)];
  await check(device, { a, b, transposeA: false, transposeB: true });
  const [oddA, oddB] = [randomMatrix(259, 21, 17), randomMatrix(21, 130, 18)];
  await check(device, { a: oddA, b: oddB, transposeA: true, transposeB: false, beta: 1 });
});

testOnEachDevice(
  "gemm() weights the inner index when asked, and refuses weights of another form",
  async (device) => {
    const [a, b] = [randomMatrix(63, 37, 3), randomMatrix(37, 65, 4)];
    const weights = Float32Array.from({ length: 37 }, (_, i) => 0.25 + i / 8);
    using left = device.upload(transposed(a).data, [37, 63]);
    using right = device.upload(b.data, [37, 65]);
    using innerWeights = device.upload(weights, [37]);
    using product = gemm(left, right, { transposeA: true, innerWeights });
    const { sum, magnitude } = products(a, b, weights);
    assertDotProductsClose(await device.download(product), sum, magnitude, a.columns + 1);
    for (const options of [{ transposeB: true }, { transposeA: true, transposeB: true }]) {
      using square = device.zeros([37, 37]);
      const error = assertThrows(() => gemm(square, square, { ...options, innerWeights }), TensorError);
      assertEquals(error.code, "unsupported");
    }
  },
);

testOnEachDevice("gemm() applies alpha and beta when it writes into a tensor", async (device) => {
  const [a, b] = [randomMatrix(63, 12, 3), randomMatrix(12, 65, 4)];
  await check(device, { a, b, transposeA: false, transposeB: true, alpha: -1.5, beta: 0.25 });
  await check(device, { a, b, transposeA: true, transposeB: false, alpha: 0, beta: 1 });
});

testOnEachDevice("gemm() ignores what the target held when beta is zero", async (device) => {
  using a = device.upload(Float32Array.of(2), [1, 1]);
  using into = device.upload(Float32Array.of(NaN), [1, 1]);
  gemm(a, a, { into, beta: 0 });
  assertEquals([...await device.download(into)], [4]);
});

testOnEachDevice("gemm() splits the inner axis when it is long and the result small", async (device) => {
  await check(device, {
    a: randomMatrix(9, 5000, 5),
    b: randomMatrix(5000, 10, 6),
    transposeA: false,
    transposeB: false,
  });
  await check(device, {
    a: randomMatrix(4, 9001, 7),
    b: randomMatrix(9001, 3, 8),
    transposeA: true,
    transposeB: true,
    alpha: 2,
    beta: -1,
  });
});

testOnEachDevice("gemm() keeps its error bound when entries span many magnitudes", async (device) => {
  for (const scale of [1e-12, 1e12]) {
    const [a, b] = [wideMatrix(33, 40, 9, 4), randomMatrix(40, 17, 10, scale)];
    await check(device, { a, b, transposeA: false, transposeB: false });
  }
});

testOnEachDevice("gemm() writes zeros when the inner axis is empty", async (device) => {
  using a = device.zeros([3, 0]);
  using b = device.zeros([0, 2]);
  using c = gemm(a, b);
  assertEquals([...await device.download(c)], [0, 0, 0, 0, 0, 0]);
});

testOnEachDevice("gemm() takes operands of 16 bits", async (device) => {
  // Small integers are exact in every format.
  const [a, b] = [
    Float32Array.from({ length: 35 }, (_, i) => i % 9 - 4),
    Float32Array.from({ length: 21 }, (_, i) => i % 5),
  ];
  using left = device.upload(a, [5, 7]);
  using right = device.upload(b, [7, 3]);
  using exact = gemm(left, right);
  for (const dtype of ["f16", "bf16"] as const) {
    using low = cast(left, dtype);
    using lower = cast(right, dtype);
    for (const [x, y] of [[low, lower], [low, right], [left, lower]] as const) {
      using product = gemm(x, y);
      assertEquals(await device.download(product), await device.download(exact));
    }
  }
});

testOnEachDevice("gemm() refuses operands that do not fit", (device) => {
  using a = device.zeros([2, 3]);
  using b = device.zeros([2, 3]);
  using indices = device.zeros([3, 2], "u32");
  assertEquals(assertThrows(() => gemm(a, b), TensorError).code, "shape_mismatch");
  assertEquals(assertThrows(() => gemm(a, indices), TensorError).code, "dtype_mismatch");
  assertEquals(
    assertThrows(() => gemm(a, b, { transposeB: true, into: a }), TensorError).code,
    "shape_mismatch",
  );
  using square = device.zeros([3, 3]);
  assertEquals(
    assertThrows(() => gemm(square, square, { into: square }), TensorError).code,
    "aliased_output",
  );
  return Promise.resolve();
});

Deno.test("gemm() works in windows when operands exceed one binding", async () => {
  await using device = await openTestGpu({ maxBindingBytes: 8192 });
  for (const [m, n, k] of [[70, 66, 68], [5, 300, 301], [300, 5, 301], [1, 1, 5000]] as const) {
    for (const [transposeA, transposeB] of TRANSPOSES) {
      const [a, b] = [randomMatrix(m, k, 13), randomMatrix(k, n, 14)];
      await check(device, { a, b, transposeA, transposeB, alpha: 1.25, beta: 0.5 });
    }
  }
});
