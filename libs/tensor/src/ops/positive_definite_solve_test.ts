import { assertEquals, assertGreater, assertLess, assertLessOrEqual, assertRejects } from "@std/assert";
import type { Device } from "../device.ts";
import { TensorError } from "../errors.ts";
import { testOnEachDevice } from "../test_support/devices.ts";
import { type HostMatrix, norm, positiveDefinite, randomMatrix } from "../test_support/matrices.ts";
import { solvePositiveDefinite } from "./positive_definite_solve.ts";

/** Solves, and asserts that the residual is that of float64; returns how many corrections that took. */
async function assertSolves(device: Device, a: HostMatrix, m: number): Promise<number> {
  const n = a.rows;
  const b = randomMatrix(m, n, 1);
  using matrix = device.upload(a.data, [n, n]);
  using rows = device.upload(b.data, [m, n]);
  using solution = await solvePositiveDefinite(matrix, rows);
  const [high, low] = [await device.download(solution.high), await device.download(solution.low)];
  const x = Float64Array.from(high, (value, i) => value + low[i]!);
  const rest = Float64Array.from(b.data);
  for (let i = 0; i < m; i++) {
    for (let k = 0; k < n; k++) {
      for (let j = 0; j < n; j++) rest[i * n + j]! -= x[i * n + k]! * a.data[k * n + j]!;
    }
  }
  assertLess(norm(rest) / (norm(x) * norm(a.data)), 1e-14, `${m} ${n}`);
  assertEquals(
    await device.download(matrix),
    device.info.backend === "cpu" ? Float64Array.from(a.data) : a.data,
  );
  return solution.corrections;
}

testOnEachDevice(
  "solvePositiveDefinite() reaches residuals of float64 and leaves the matrix as it was",
  async (device) => {
    for (const [m, n, ridge] of [[1, 1, 1], [5, 70, 0.1], [32, 150, 1e-3]] as const) {
      assertLessOrEqual(await assertSolves(device, positiveDefinite(n, ridge, n), m), 2);
    }
  },
);

testOnEachDevice("solvePositiveDefinite() goes on where two corrections are not enough", async (device) => {
  const n = 60;
  // A condition number of 6e5.
  const data = Float32Array.from({ length: n * n }, (_, i) => i % (n + 1) === 0 ? 1.0001 : 1);
  const corrections = await assertSolves(device, { rows: n, columns: n, data }, 3);
  if (device.info.backend === "webgpu") assertGreater(corrections, 2);
});

testOnEachDevice("solvePositiveDefinite() names the pivot that is not positive", async (device) => {
  const n = 80;
  const { data } = positiveDefinite(n, 0.1, 7);
  data[40 * (n + 1)] = -1;
  using matrix = device.upload(data, [n, n]);
  using rows = device.upload(randomMatrix(2, n, 1).data, [2, n]);
  const error = await assertRejects(() => solvePositiveDefinite(matrix, rows), TensorError, "pivot 40 ");
  assertEquals(error.code, "not_positive_definite");
});

testOnEachDevice("solvePositiveDefinite() refuses right-hand sides that do not fit", async (device) => {
  using matrix = device.upload(positiveDefinite(4, 1, 1).data, [4, 4]);
  using rows = device.zeros([2, 3]);
  const error = await assertRejects(() => solvePositiveDefinite(matrix, rows), TensorError);
  assertEquals(error.code, "shape_mismatch");
});

testOnEachDevice("solvePositiveDefinite() gives zero for zero", async (device) => {
  using matrix = device.upload(positiveDefinite(9, 1, 1).data, [9, 9]);
  using rows = device.zeros([2, 9]);
  using solution = await solvePositiveDefinite(matrix, rows);
  assertEquals(solution.residual, 0);
  assertEquals(norm(await device.download(solution.high)), 0);
});
