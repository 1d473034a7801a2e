import { assertEquals, assertThrows } from "@std/assert";
import { assertRelativelyClose } from "@lora-loom/testing";
import { TensorError } from "../errors.ts";
import { openTestGpu, testOnEachDevice } from "../test_support/devices.ts";
import { randomMatrix } from "../test_support/matrices.ts";
import { gramBlocks, multiplyBlocks } from "./blocks.ts";

/** Rows, the blocks' size, columns of the other factor: one block, whole blocks, a smaller last one, sizes that are no multiple of 16. */
const SIZES = [[1, 1, 1], [7, 7, 5], [96, 32, 33], [64, 16, 68], [70, 32, 65], [5, 2, 3], [
  64,
  64,
  130,
]] as const;

/** The blocks as they are stored, with zeros after a last one that is smaller. */
function randomBlocks(rows: number, size: number): Float32Array<ArrayBuffer> {
  const { data } = randomMatrix(rows, size, rows);
  const order = rows % size;
  return data.map((value, i) => {
    const [row, column] = [Math.floor(i / size), i % size];
    return order > 0 && row >= rows - order && column >= order ? 0 : value;
  });
}

/** The same as a whole matrix, `[rows, rows]`. */
function dense(stored: ArrayLike<number>, rows: number, size: number): Float64Array {
  const whole = new Float64Array(rows * rows);
  for (let i = 0; i < rows; i++) {
    const first = i - i % size;
    for (let j = first; j < Math.min(first + size, rows); j++) {
      whole[i * rows + j] = stored[i * size + j - first]!;
    }
  }
  return whole;
}

for (const [rows, size, columns] of SIZES) {
  testOnEachDevice(
    `multiplyBlocks() multiplies as the transposed whole matrix does: ${rows} rows in blocks of ${size}`,
    async (device) => {
      const stored = randomBlocks(rows, size);
      const whole = dense(stored, rows, size);
      const x = randomMatrix(rows, columns, 2).data;
      const held = randomMatrix(rows, columns, 3).data;
      using blocks = device.upload(stored, [rows, size]);
      using right = device.upload(x, [rows, columns]);
      const expected = new Float64Array(rows * columns);
      for (let i = 0; i < rows; i++) {
        for (let j = 0; j < rows; j++) {
          for (let c = 0; c < columns; c++) {
            expected[i * columns + c]! += whole[j * rows + i]! * x[j * columns + c]!;
          }
        }
      }
      using product = multiplyBlocks(blocks, right);
      assertRelativelyClose(await device.download(product), expected, 1e-6);
      using into = device.upload(held, [rows, columns]);
      multiplyBlocks(blocks, right, { into, beta: 2 });
      assertRelativelyClose(
        await device.download(into),
        expected.map((value, i) => value + 2 * held[i]!),
        1e-6,
      );
    },
  );

  testOnEachDevice(
    `gramBlocks() adds what lies on the diagonal of XᵀX: ${rows} columns in blocks of ${size}`,
    async (device) => {
      const x = randomMatrix(columns, rows, 4).data;
      const expected = new Float64Array(rows * size);
      for (let t = 0; t < columns; t++) {
        for (let i = 0; i < rows; i++) {
          const first = i - i % size;
          for (let j = first; j < Math.min(first + size, rows); j++) {
            expected[i * size + j - first]! += x[t * rows + i]! * x[t * rows + j]!;
          }
        }
      }
      using gradients = device.upload(x, [columns, rows]);
      using sums = gramBlocks(gradients, { size });
      assertRelativelyClose(await device.download(sums), expected, 1e-6);
      gramBlocks(gradients, { size, into: sums });
      assertRelativelyClose(await device.download(sums), expected.map((value) => 2 * value), 1e-6);
    },
  );
}

Deno.test("multiplyBlocks() works in windows when operands exceed one binding", async () => {
  const [rows, size, columns] = [200, 64, 70];
  const [stored, x] = [randomBlocks(rows, size), randomMatrix(rows, columns, 2).data];
  const results: number[][] = [];
  for (const limit of [{}, { maxBindingBytes: 2 ** 14 }]) {
    await using device = await openTestGpu(limit);
    using product = multiplyBlocks(device.upload(stored, [rows, size]), device.upload(x, [rows, columns]));
    results.push([...await device.download(product)]);
  }
  assertRelativelyClose(results[1]!, results[0]!, 1e-6);
});

testOnEachDevice(
  "multiplyBlocks() refuses other numbers of rows and its own operands as result",
  (device) => {
    using blocks = device.zeros([4, 2]);
    using x = device.zeros([4, 2]);
    using short = device.zeros([3, 2]);
    const codeOf = (work: () => void) => assertThrows(work, TensorError).code;
    assertEquals(codeOf(() => multiplyBlocks(blocks, short)), "shape_mismatch");
    assertEquals(codeOf(() => multiplyBlocks(blocks, x, { into: short })), "shape_mismatch");
    assertEquals(codeOf(() => multiplyBlocks(blocks, x, { into: x })), "aliased_output");
    return Promise.resolve();
  },
);
