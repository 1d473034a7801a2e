import { assertEquals, assertThrows } from "@std/assert";
import type { Device } from "../device.ts";
import { TensorError } from "../errors.ts";
import { openTestGpu, testOnEachDevice } from "../test_support/devices.ts";
import { randomMatrix, transposed, wideMatrix } from "../test_support/matrices.ts";
import type { Tensor } from "../tensor.ts";
import { add } from "./add.ts";
import { multiply } from "./multiply.ts";
import { scaleColumns, scaleRows } from "./scale.ts";
import { transpose } from "./transpose.ts";

/** Asserts that every element is within four units in the last place of float32. */
function assertWithinFourUlp(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  assertEquals(actual.length, expected.length);
  for (let i = 0; i < expected.length; i++) {
    const allowed = 4 * Math.max(2 ** -149, Math.abs(expected[i]!) * 2 ** -23);
    if (!(Math.abs(actual[i]! - expected[i]!) <= allowed)) {
      throw new Error(`element ${i}: ${actual[i]} against ${expected[i]}`);
    }
  }
}

const SIZES = [[1, 1], [7, 9], [63, 65], [129, 4]] as const;

testOnEachDevice("add() combines elements with factors when shapes agree", async (device) => {
  for (const [rows, columns] of SIZES) {
    const [a, b] = [wideMatrix(rows, columns, 1, 15), wideMatrix(rows, columns, 2, 15)];
    using x = device.upload(a.data, [rows, columns]);
    using y = device.upload(b.data, [rows, columns]);
    using plain = add(x, y);
    using scaled = add(x, y, { alpha: 0.5, beta: -2 });
    // Sums may cancel, so the bound is that of the larger operand.
    const check = (actual: ArrayLike<number>, alpha: number, beta: number) =>
      a.data.forEach((u, i) => {
        const v = b.data[i]!;
        const error = Math.abs(actual[i]! - (alpha * u + beta * v));
        if (!(error <= 2 ** -22 * (Math.abs(alpha * u) + Math.abs(beta * v)))) {
          throw new Error(`element ${i} is off by ${error}`);
        }
      });
    check(await device.download(plain), 1, 1);
    check(await device.download(scaled), 0.5, -2);
  }
});

/** Runs an operation into a fresh tensor, over x, over y and over both, with x = 1, 2, 3 and y = 10, 20, 30. */
async function intoEveryTarget(device: Device, operation: (x: Tensor, y: Tensor, into: Tensor) => Tensor) {
  const results: number[][] = [];
  for (const target of ["fresh", "x", "y", "both"] as const) {
    using x = device.upload(Float32Array.of(1, 2, 3), [3]);
    using other = device.upload(Float32Array.of(10, 20, 30), [3]);
    using fresh = device.upload(Float32Array.of(NaN, NaN, NaN), [3]);
    const y = target === "both" ? x : other;
    const into = target === "fresh" ? fresh : target === "y" ? other : x;
    results.push([...await device.download(operation(x, y, into))]);
  }
  return results;
}

testOnEachDevice("add() writes over its operands when told to", async (device) => {
  const results = await intoEveryTarget(device, (x, y, into) => add(x, y, { alpha: 2, beta: 3, into }));
  assertEquals(results, [[32, 64, 96], [32, 64, 96], [32, 64, 96], [5, 10, 15]]);
});

testOnEachDevice("multiply() writes over its operands when told to", async (device) => {
  const results = await intoEveryTarget(device, (x, y, into) => multiply(x, y, { into }));
  assertEquals(results, [[10, 40, 90], [10, 40, 90], [10, 40, 90], [1, 4, 9]]);
});

testOnEachDevice("multiply() rounds once when shapes agree", async (device) => {
  for (const [rows, columns] of SIZES) {
    const [a, b] = [wideMatrix(rows, columns, 3, 15), wideMatrix(rows, columns, 4, 15)];
    using x = device.upload(a.data, [rows, columns]);
    using y = device.upload(b.data, [rows, columns]);
    using product = multiply(x, y);
    assertWithinFourUlp(await device.download(product), Float64Array.from(a.data, (u, i) => u * b.data[i]!));
  }
});

testOnEachDevice("add() and multiply() refuse other shapes and types", (device) => {
  using x = device.zeros([2, 3]);
  using y = device.zeros([3, 2]);
  using half = device.zeros([2, 3], "bf16");
  assertEquals(assertThrows(() => add(x, y), TensorError).code, "shape_mismatch");
  assertEquals(assertThrows(() => multiply(x, half), TensorError).code, "dtype_mismatch");
  return Promise.resolve();
});

testOnEachDevice("scaleRows() and scaleColumns() multiply by diagonals, in place too", async (device) => {
  for (const [rows, columns] of SIZES) {
    const { data } = randomMatrix(rows, columns, 5);
    const [byRow, byColumn] = [randomMatrix(rows, 1, 6).data, randomMatrix(1, columns, 7).data];
    using x = device.upload(data, [rows, columns]);
    using rowFactors = device.upload(byRow, [rows]);
    using columnFactors = device.upload(byColumn, [columns]);
    using scaled = scaleRows(x, rowFactors);
    const expected = Float64Array.from(data, (value, i) => value * byRow[Math.floor(i / columns)]!);
    assertWithinFourUlp(await device.download(scaled), expected);
    scaleColumns(x, columnFactors, { into: x });
    assertWithinFourUlp(
      await device.download(x),
      Float64Array.from(data, (value, i) => value * byColumn[i % columns]!),
    );
  }
});

testOnEachDevice("transpose() moves every element when sizes are odd", async (device) => {
  for (const [rows, columns] of [...SIZES, [33, 31] as const]) {
    const matrix = randomMatrix(rows, columns, 8);
    using x = device.upload(matrix.data, [rows, columns]);
    using result = transpose(x);
    assertEquals(result.shape, [columns, rows]);
    assertEquals([...await device.download(result)], [...transposed(matrix).data]);
  }
});

Deno.test("elementwise operations work in windows when operands exceed one binding", async () => {
  await using device = await openTestGpu({ maxBindingBytes: 4096 });
  const [rows, columns] = [67, 65];
  const matrix = randomMatrix(rows, columns, 9);
  using x = device.upload(matrix.data, [rows, columns]);
  using factors = device.upload(Float32Array.from({ length: rows }, (_, i) => i), [rows]);
  using sum = add(x, x, { beta: 3 });
  using doubled = add(x, x);
  multiply(doubled, x, { into: doubled });
  using scaled = scaleRows(x, factors);
  using turned = transpose(x);
  assertWithinFourUlp(await device.download(sum), Float64Array.from(matrix.data, (value) => 4 * value));
  assertWithinFourUlp(
    await device.download(doubled),
    Float64Array.from(matrix.data, (value) => 2 * value * value),
  );
  const expected = Float64Array.from(matrix.data, (value, i) => value * Math.floor(i / columns));
  assertWithinFourUlp(await device.download(scaled), expected);
  assertEquals([...await device.download(turned)], [...transposed(matrix).data]);
});

Deno.test("transpose() gives the same result when the hardware kernel computes it", async () => {
  await using device = await openTestGpu({ assumeClass: "gpu" });
  for (const [rows, columns] of SIZES) {
    const matrix = randomMatrix(rows, columns, 10);
    using x = device.upload(matrix.data, [rows, columns]);
    using result = transpose(x);
    assertEquals([...await device.download(result)], [...transposed(matrix).data]);
  }
});
