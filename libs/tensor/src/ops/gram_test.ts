import { assertDotProductsClose } from "@lora-loom/testing";
import { assertEquals, assertThrows } from "@std/assert";
import type { Device } from "../device.ts";
import { TensorError } from "../errors.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { wholeMatrix } from "../gpu/matrix_view.ts";
import { openTestGpu, testOnEachDevice } from "../test_support/devices.ts";
import { type HostMatrix, products, randomMatrix, transposed } from "../test_support/matrices.ts";
import { gram, queueMirror } from "./gram.ts";

function assertSymmetric(x: ArrayLike<number>, size: number): void {
  for (let i = 0; i < size; i++) {
    for (let j = 0; j < i; j++) {
      assertEquals(x[i * size + j], x[j * size + i], `entries (${i}, ${j}) and (${j}, ${i})`);
    }
  }
}

async function check(
  device: Device,
  x: HostMatrix,
  of: "rows" | "columns",
  weights?: Float32Array<ArrayBuffer>,
) {
  const [left, right] = of === "rows" ? [x, transposed(x)] : [transposed(x), x];
  const { sum, magnitude } = products(left, right, weights);
  using stored = device.upload(x.data, [x.rows, x.columns]);
  using rowWeights = weights && device.upload(weights, [weights.length]);
  using result = gram(stored, { of, ...rowWeights ? { rowWeights } : {} });
  const actual = await device.download(result);
  assertDotProductsClose(actual, sum, magnitude, left.columns + (weights ? 1 : 0));
  assertSymmetric(actual, left.rows);
}

const SIZES = [[1, 1], [7, 65], [65, 7], [63, 129], [129, 63], [64, 36]] as const;

testOnEachDevice(
  "gram() gives the inner products of rows or columns when sizes are odd or aligned",
  async (device) => {
    for (const [rows, columns] of SIZES) {
      await check(device, randomMatrix(rows, columns, 1), "rows");
      await check(device, randomMatrix(rows, columns, 2), "columns");
    }
  },
);

testOnEachDevice("gram() splits the inner axis when vectors are few and long", async (device) => {
  await check(device, randomMatrix(8, 9001, 3), "rows");
  await check(device, randomMatrix(9001, 5, 4), "columns");
});

testOnEachDevice("gram() weights rows when asked", async (device) => {
  for (const [rows, columns] of [[40, 12], [41, 13]] as const) {
    const weights = Float32Array.from({ length: rows }, (_, i) => 0.25 + i / 8);
    await check(device, randomMatrix(rows, columns, 5), "columns", weights);
  }
});

testOnEachDevice("gram() accumulates batches when it writes into a tensor", async (device) => {
  const batches = [randomMatrix(20, 19, 6), randomMatrix(31, 19, 7)];
  using total = device.zeros([19, 19]);
  for (const { rows, columns, data } of batches) {
    using x = device.upload(data, [rows, columns]);
    gram(x, { of: "columns", into: total, beta: 1, alpha: 2 });
  }
  const all = { rows: 51, columns: 19, data: Float32Array.of(...batches[0]!.data, ...batches[1]!.data) };
  const { sum, magnitude } = products(transposed(all), all);
  const twice = (values: Float64Array) => values.map((value) => 2 * value);
  const actual = await device.download(total);
  assertDotProductsClose(actual, twice(sum), twice(magnitude), 51);
  assertSymmetric(actual, 19);
});

testOnEachDevice("gram() refuses weights that do not fit", (device) => {
  using x = device.zeros([3, 4]);
  using weights = device.zeros([4]);
  assertEquals(
    assertThrows(() => gram(x, { of: "columns", rowWeights: weights }), TensorError).code,
    "shape_mismatch",
  );
  assertEquals(
    assertThrows(() => gram(x, { of: "rows", rowWeights: weights }), TensorError).code,
    "unsupported",
  );
  return Promise.resolve();
});

Deno.test("gram() works in windows when operands exceed one binding", async () => {
  await using device = await openTestGpu({ maxBindingBytes: 8192 });
  for (const [rows, columns] of [[70, 66], [66, 70], [200, 7], [7, 100]] as const) {
    const x = randomMatrix(rows, columns, 8);
    await check(device, x, "rows");
    await check(device, x, "columns");
    await check(device, x, "columns", Float32Array.from({ length: rows }, (_, i) => 1 + i));
  }
});

Deno.test("queueMirror() copies what lies below the diagonal above it, by either kernel", async () => {
  for (const assumeClass of ["gpu", "software"] as const) {
    await using device = await openTestGpu({ assumeClass }) as GpuDevice;
    for (const size of [1, 31, 32, 77]) {
      const { data } = randomMatrix(size, size, size);
      using x = device.upload(data, [size, size]);
      queueMirror(device, wholeMatrix(x, "test"));
      const expected = data.map((value, i) => {
        const [row, column] = [Math.floor(i / size), i % size];
        return row < column ? data[column * size + row]! : value;
      });
      assertEquals(await device.download(x), expected);
    }
  }
});
