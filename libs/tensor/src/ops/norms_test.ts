import { assertAlmostEquals, assertEquals } from "@std/assert";
import { openTestGpu, testOnEachDevice } from "../test_support/devices.ts";
import { type HostMatrix, randomMatrix, transposed, wideMatrix } from "../test_support/matrices.ts";
import { columnNorms, rowNorms } from "./norms.ts";
import { dot, maxAbs, sumOfSquares } from "./reductions.ts";

/** Norms of the rows by definition, in float64, which holds the squares of all float32 numbers. */
function expectedRowNorms({ rows, columns, data }: HostMatrix, norm: "l2" | "inf"): number[] {
  return Array.from({ length: rows }, (_, i) => {
    const row = [...data.subarray(i * columns, (i + 1) * columns)].map(Math.abs);
    return norm === "inf" ? Math.max(0, ...row) : Math.sqrt(row.reduce((sum, value) => sum + value ** 2, 0));
  });
}

function assertEachClose(actual: ArrayLike<number>, expected: readonly number[], relative: number): void {
  assertEquals(actual.length, expected.length);
  expected.forEach((value, i) =>
    assertAlmostEquals(actual[i]!, value, relative * Math.abs(value), `entry ${i}`)
  );
}

const MATRICES = [
  randomMatrix(1, 1, 1),
  randomMatrix(7, 129, 2),
  randomMatrix(129, 7, 3),
  randomMatrix(65, 63, 4, 1e30),
  randomMatrix(63, 65, 5, 1e-30),
  wideMatrix(33, 300, 6, 18),
  { rows: 3, columns: 5, data: new Float32Array(15) },
];

testOnEachDevice("rowNorms() and columnNorms() hold when entries are huge, tiny or zero", async (device) => {
  for (const matrix of MATRICES) {
    using x = device.upload(matrix.data, [matrix.rows, matrix.columns]);
    for (const norm of ["l2", "inf"] as const) {
      const relative = norm === "inf" ? 0 : 1e-6;
      using ofRows = rowNorms(x, norm);
      using ofColumns = columnNorms(x, norm);
      assertEachClose(await device.download(ofRows), expectedRowNorms(matrix, norm), relative);
      assertEachClose(await device.download(ofColumns), expectedRowNorms(transposed(matrix), norm), relative);
    }
  }
});

Deno.test("rowNorms() gives the same with the kernels of hardware and of software drivers", async () => {
  for (const assumeClass of ["gpu", "software"] as const) {
    await using device = await openTestGpu({ assumeClass });
    for (const matrix of [randomMatrix(9, 5000, 8), wideMatrix(33, 300, 6, 18)]) {
      using x = device.upload(matrix.data, [matrix.rows, matrix.columns]);
      for (const norm of ["l2", "inf"] as const) {
        using norms = rowNorms(x, norm);
        assertEachClose(
          await device.download(norms),
          expectedRowNorms(matrix, norm),
          norm === "inf" ? 0 : 1e-6,
        );
      }
    }
  }
});

testOnEachDevice("norms show a NaN or an infinity when there is one", async (device) => {
  using x = device.upload(Float32Array.of(1, NaN, 2, -Infinity, 1, 1), [3, 2]);
  using largest = rowNorms(x, "inf");
  using overall = maxAbs(x);
  assertEquals([...await device.download(largest)], [NaN, Infinity, 1]);
  assertEquals([...await device.download(overall)], [NaN]);
});

testOnEachDevice(
  "maxAbs(), sumOfSquares() and dot() cover every element when there are many",
  async (device) => {
    for (const count of [0, 1, 65, 5000, 70001]) {
      const { data } = randomMatrix(1, count, 7);
      if (count > 0) data[count - 1] = -9;
      using x = device.upload(data, [count]);
      using largest = maxAbs(x);
      using squares = sumOfSquares(x);
      assertEquals([...await device.download(largest)], [count === 0 ? 0 : 9]);
      assertEachClose(
        await device.download(squares),
        [data.reduce((sum, value) => sum + value * value, 0)],
        1e-6,
      );
      const other = data.map((value, i) => value + i % 7);
      using y = device.upload(other, [count]);
      using product = dot(x, y);
      const expected = data.reduce((sum, value, i) => sum + value * other[i]!, 0);
      const magnitude = data.reduce((sum, value, i) => sum + Math.abs(value * other[i]!), 0);
      assertAlmostEquals((await device.download(product))[0]!, expected, 1e-6 * magnitude);
    }
  },
);

Deno.test("norms work in windows when operands exceed one binding", async () => {
  await using device = await openTestGpu({ maxBindingBytes: 4096 });
  const matrix = randomMatrix(67, 65, 8);
  using x = device.upload(matrix.data, [67, 65]);
  using ofRows = rowNorms(x);
  using ofColumns = columnNorms(x);
  using squares = sumOfSquares(x);
  using largest = maxAbs(x);
  using product = dot(x, x);
  assertEquals(await device.download(product), await device.download(squares));
  assertEachClose(await device.download(ofRows), expectedRowNorms(matrix, "l2"), 1e-6);
  assertEachClose(await device.download(ofColumns), expectedRowNorms(transposed(matrix), "l2"), 1e-6);
  assertEachClose(await device.download(squares), [
    matrix.data.reduce((sum, value) => sum + value * value, 0),
  ], 1e-6);
  assertEquals([...await device.download(largest)], [Math.max(...matrix.data.map(Math.abs))]);
});
