import { assert, assertEquals } from "@std/assert";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import { CpuDevice, type Device, openDevice } from "@lora-loom/tensor";
import { largeMatrix, matrixStorage } from "./large_matrix.ts";
import { balancedFactors, leadingTriplets } from "./matrix_best_rank.ts";
import { bestRank, jacobiSvd } from "./oracle_for_tests.ts";
import { zeroRows } from "./rows.ts";

function onDevice(device: Device, values: ArrayLike<number>, rows: number, columns: number) {
  const storage = matrixStorage(device, values.length);
  storage.set(Float64Array.from(values));
  return largeMatrix(device, storage, rows, columns);
}

/** The matrix that the first k triplets make, found without a hint. */
async function approximation(
  device: Device,
  values: ArrayLike<number>,
  rows: number,
  columns: number,
  k: number,
) {
  using matrix = onDevice(device, values, rows, columns);
  const triplets = await leadingTriplets(matrix, k, zeroRows(0, columns), 7);
  const { a, b } = balancedFactors(triplets);
  const out = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let r = 0; r < a.count; r++) {
      for (let j = 0; j < columns; j++) {
        out[i * columns + j]! += b[i * a.count + r]! * a.data[r * columns + j]!;
      }
    }
  }
  return { out, sigma: triplets.sigma };
}

/** Cosines as singular vectors, with singular values of one's own. */
function withSpectrum(rows: number, columns: number, sigma: readonly number[]): Float64Array<ArrayBuffer> {
  const cosine = (d: number, i: number, r: number) =>
    Math.sqrt(2 / d) * Math.cos(Math.PI * (r + 1) * (2 * i + 1) / (2 * d));
  return Float64Array.from({ length: rows * columns }, (_, index) => {
    const i = Math.floor(index / columns), j = index % columns;
    return sigma.reduce((sum, value, r) => sum + value * cosine(rows, i, r) * cosine(columns, j, r), 0);
  });
}

Deno.test("leadingTriplets() finds the best approximation of tall, wide and noisy matrices", async () => {
  for (const [rows, columns] of [[60, 25], [25, 60], [40, 40]] as const) {
    for (const k of [1, 5, 25]) {
      const noise = gaussians(rows * columns, rows + k);
      const { out } = await approximation(new CpuDevice(), noise, rows, columns, k);
      assertRelativelyClose(out, bestRank(noise, rows, columns, k), 1e-7, `${rows} × ${columns}, k ${k}:`);
    }
  }
});

Deno.test("leadingTriplets() separates close singular values, restarting as often as it takes", async () => {
  const [rows, columns, k] = [300, 220, 4];
  // A slow decay: the last one kept and the first one left out differ by two parts in a hundred.
  const sigma = Array.from({ length: 200 }, (_, i) => 0.98 ** i);
  const { out, sigma: found } = await approximation(
    new CpuDevice(),
    withSpectrum(rows, columns, sigma),
    rows,
    columns,
    k,
  );
  assertRelativelyClose(found, Float64Array.from(sigma.slice(0, k)), 1e-9);
  assertRelativelyClose(out, withSpectrum(rows, columns, sigma.slice(0, k)), 1e-7);
});

Deno.test("leadingTriplets() copes with equal singular values, lower rank and zero", async () => {
  const [rows, columns] = [30, 20];
  const device = new CpuDevice();
  const equal = await approximation(device, withSpectrum(rows, columns, [2, 1, 1, 1]), rows, columns, 2);
  // Of the equal ones any will do: only the singular values are determined.
  assertRelativelyClose(equal.sigma, Float64Array.of(2, 1), 1e-9);
  const low = withSpectrum(rows, columns, [3, 1]);
  const { out, sigma } = await approximation(device, low, rows, columns, 6);
  assertRelativelyClose(out, low, 1e-9);
  assert(sigma.length <= 6 && sigma.slice(2).every((value) => value < 1e-7), `${sigma}`);
  const zero = await approximation(device, new Float64Array(rows * columns), rows, columns, 3);
  assertEquals(zero.out, new Float64Array(rows * columns));
});

Deno.test("leadingTriplets() agrees on a GPU to the precision of float32", async () => {
  const [rows, columns, k] = [90, 70, 6];
  await using device = await openDevice({ device: "software" });
  const values = withSpectrum(rows, columns, Array.from({ length: 60 }, (_, i) => 0.8 ** i));
  const { out, sigma } = await approximation(device, values, rows, columns, k);
  assertRelativelyClose(out, bestRank(values, rows, columns, k), 1e-5);
  assertRelativelyClose(sigma, jacobiSvd(values, rows, columns).slice(0, k).map((part) => part.sigma), 1e-6);
});
