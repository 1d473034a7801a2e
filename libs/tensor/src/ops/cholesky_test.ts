import { assert, assertEquals, assertLess, assertRejects, assertThrows } from "@std/assert";
import type { Device } from "../device.ts";
import { TensorError } from "../errors.ts";
import { openTestGpu, testOnEachDevice } from "../test_support/devices.ts";
import {
  type HostMatrix,
  norm,
  positiveDefinite,
  products,
  randomMatrix,
  transposed,
} from "../test_support/matrices.ts";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { wholeMatrix } from "../gpu/matrix_view.ts";
import { choleskyFactorBlock, INVERSE_COLUMNS, invertTriangularBlock } from "../kernels/cholesky_block.ts";
import { factorCholesky } from "./cholesky.ts";
import { solveCholesky, solveTriangular } from "./cholesky_solve.ts";
import { invertTriangular, queueWiderInverses } from "./triangular_inverse.ts";

/** ‖B − product‖ / scale. */
function backwardError(b: ArrayLike<number>, product: Float64Array, scale: number): number {
  return norm(product.map((value, i) => value - b[i]!)) / scale;
}

async function download(device: Device, tensor: Parameters<Device["download"]>[0]): Promise<HostMatrix> {
  const [rows, columns] = tensor.shape as [number, number];
  return { rows, columns, data: Float32Array.from(await device.download(tensor)) };
}

/** Asserts that one is the inverse of the other. */
function assertInverse(x: HostMatrix, y: HostMatrix): void {
  const { rows } = x;
  const identity = Float64Array.from({ length: rows * rows }, (_, i) => i % (rows + 1) === 0 ? 1 : 0);
  assertLess(backwardError(identity, products(x, y).sum, norm(x.data) * norm(y.data)), TOLERANCE);
}

const SIZES = [1, 7, 63, 64, 65, 129, 200, 330];
const TOLERANCE = 1e-6;

testOnEachDevice("factorCholesky() gives a lower triangle whose product is the matrix", async (device) => {
  for (const n of SIZES) {
    const a = positiveDefinite(n, 0.1, n);
    using uploaded = device.upload(a.data, [n, n]);
    using factor = await factorCholesky(uploaded);
    const lower = await download(device, factor.lower);
    for (let i = 0; i < n; i++) for (let j = i + 1; j < n; j++) assertEquals(lower.data[i * n + j], 0);
    const { sum } = products(lower, transposed(lower));
    assertLess(backwardError(a.data, sum, norm(a.data)), TOLERANCE);
    assertEquals(factor.pivots.length, n);
    assert(factor.pivots.every((pivot, i) => Math.abs(pivot - lower.data[i * n + i]! ** 2) <= 1e-5 * pivot));
  }
});

testOnEachDevice(
  "factorCholesky() reads only the lower triangle and leaves the matrix as it was",
  async (device) => {
    const n = 70;
    const a = positiveDefinite(n, 0.1, 1);
    const spoilt = a.data.map((value, index) => index % n > Math.floor(index / n) ? NaN : value);
    using whole = device.upload(a.data, [n, n]);
    using half = device.upload(spoilt, [n, n]);
    using expected = await factorCholesky(whole);
    using actual = await factorCholesky(half);
    assertEquals(await device.download(actual.lower), await device.download(expected.lower));
    assertEquals((await device.download(whole))[1], a.data[1]);
  },
);

testOnEachDevice("solveTriangular() solves on either side, with L and with its transpose", async (device) => {
  for (const n of [1, 63, 65, 150]) {
    using matrix = device.upload(positiveDefinite(n, 0.5, n).data, [n, n]);
    using factor = await factorCholesky(matrix);
    const lower = await download(device, factor.lower);
    for (const m of [1, 9]) {
      for (const side of ["left", "right"] as const) {
        for (const transpose of [false, true]) {
          const b = side === "left" ? randomMatrix(n, m, 2) : randomMatrix(m, n, 3);
          using right = device.upload(b.data, [b.rows, b.columns]);
          using solution = solveTriangular(factor, right, { side, transpose });
          const x = await download(device, solution);
          const l = transpose ? transposed(lower) : lower;
          const { sum } = side === "left" ? products(l, x) : products(x, l);
          assertLess(
            backwardError(b.data, sum, norm(l.data) * norm(x.data)),
            TOLERANCE,
            `${n} ${m} ${side} ${transpose}`,
          );
        }
      }
    }
  }
});

testOnEachDevice("solveCholesky() solves with the matrix on either side", async (device) => {
  const n = 130;
  const a = positiveDefinite(n, 1e-3, 4);
  using matrix = device.upload(a.data, [n, n]);
  using factor = await factorCholesky(matrix);
  for (const side of ["left", "right"] as const) {
    const b = side === "left" ? randomMatrix(n, 40, 5) : randomMatrix(40, n, 6);
    using right = device.upload(b.data, [b.rows, b.columns]);
    using solution = solveCholesky(factor, right, { side });
    const x = await download(device, solution);
    const { sum } = side === "left" ? products(a, x) : products(x, a);
    assertLess(backwardError(b.data, sum, norm(a.data) * norm(x.data)), TOLERANCE);
  }
});

testOnEachDevice("factorCholesky() names the pivot that is not positive", async (device) => {
  const n = 100;
  for (
    const [spoil, expected] of [[(a: Float32Array) => (a[77 * n + 77] = -1), 77], [
      (a: Float32Array) => a.fill(0),
      0,
    ]] as const
  ) {
    const { data } = positiveDefinite(n, 0.1, 7);
    spoil(data);
    using matrix = device.upload(data, [n, n]);
    const error = await assertRejects(() => factorCholesky(matrix), TensorError, `pivot ${expected} `);
    assertEquals(error.code, "not_positive_definite");
  }
});

testOnEachDevice("factorCholesky() and solveTriangular() refuse shapes that do not fit", async (device) => {
  using wide = device.zeros([2, 3]);
  assertEquals((await assertRejects(() => factorCholesky(wide), TensorError)).code, "shape_mismatch");
  using one = device.upload(Float32Array.of(4), [1, 1]);
  using factor = await factorCholesky(one);
  assertEquals(assertThrows(() => solveTriangular(factor, wide), TensorError).code, "shape_mismatch");
});

Deno.test("factorCholesky(), solveCholesky() and invertTriangular() work in windows when the matrix exceeds one binding", async () => {
  await using device = await openTestGpu({ maxBindingBytes: 65536 });
  const n = 200;
  const a = positiveDefinite(n, 0.1, 8);
  using matrix = device.upload(a.data, [n, n]);
  using factor = await factorCholesky(matrix);
  const b = randomMatrix(n, 30, 9);
  using right = device.upload(b.data, [n, 30]);
  using solution = solveCholesky(factor, right);
  const x = await download(device, solution);
  assertLess(backwardError(b.data, products(a, x).sum, norm(a.data) * norm(x.data)), TOLERANCE);
  using inverted = invertTriangular(factor);
  assertInverse(await download(device, factor.lower), await download(device, inverted));
});

testOnEachDevice("invertTriangular() gives a lower triangle that L takes to the identity", async (device) => {
  for (const n of SIZES) {
    const a = positiveDefinite(n, 0.1, n);
    using uploaded = device.upload(a.data, [n, n]);
    using factor = await factorCholesky(uploaded);
    using inverted = invertTriangular(factor);
    const [lower, inverse] = [await download(device, factor.lower), await download(device, inverted)];
    for (let i = 0; i < n; i++) for (let j = i + 1; j < n; j++) assertEquals(inverse.data[i * n + j], 0);
    assertInverse(lower, inverse);
  }
});

testOnEachDevice("factorCholesky() factors in the matrix's memory when told so", async (device) => {
  const n = 130;
  const { data } = positiveDefinite(n, 0.1, 3);
  using kept = device.upload(data, [n, n]);
  using expected = await factorCholesky(kept);
  const given = device.upload(data, [n, n]);
  using factor = await factorCholesky(given, { overwrite: true });
  given.dispose();
  assertEquals(await device.download(factor.lower), await device.download(expected.lower));
});

Deno.test("solveCholesky() solves with inverses of blocks of any size", async () => {
  await using device = await openTestGpu() as GpuDevice;
  for (const n of [250, 320, 400]) {
    const a = positiveDefinite(n, 0.1, n);
    using matrix = device.upload(a.data, [n, n]);
    using factor = await factorCholesky(matrix);
    const triangle = { lower: wholeMatrix(factor.lower, "test"), inverses: factor.inverses! };
    const size = triangle.inverses.shape[2]!;
    const b = randomMatrix(9, n, 5);
    using right = device.upload(b.data, [9, n]);
    for (const times of [2, 4]) {
      using inverses = queueWiderInverses(device, triangle, times * size);
      using solution = solveCholesky({ ...factor, inverses }, right, { side: "right" });
      const x = await download(device, solution);
      const { sum } = products(x, a);
      assertLess(backwardError(b.data, sum, norm(a.data) * norm(x.data)), TOLERANCE, `${n} ${times}`);
    }
  }
});

Deno.test("the hardware kernels' templates factor and invert a block, whole or cut", async () => {
  // Small blocks: a software driver takes minutes to compile the ones that hardware gets.
  await using device = await openTestGpu() as GpuDevice;
  for (const [size, n] of [[32, 32], [32, 21], [64, 50]] as const) {
    const a = positiveDefinite(n, 0.1, 10);
    using lower = device.upload(a.data, [n, n]);
    using pivots = device.empty([n]);
    using inverses = device.empty([size, size]);
    device.dispatch(choleskyFactorBlock(size), [lower, pivots], [n, n, 0, 0], [1]);
    device.dispatch(invertTriangularBlock(size), [lower, inverses], [n, n, 0, 0], [size / INVERSE_COLUMNS]);
    const found = await download(device, lower);
    const factor = { ...found, data: found.data.map((value, i) => i % n > Math.floor(i / n) ? 0 : value) };
    assertLess(backwardError(a.data, products(factor, transposed(factor)).sum, norm(a.data)), TOLERANCE);
    const roots = [...await device.download(pivots)].map(Math.sqrt);
    roots.forEach((root, i) => assertLess(Math.abs(root - factor.data[i * n + i]!), 1e-5));
    const inverse = [...await device.download(inverses)];
    const block = {
      rows: n,
      columns: n,
      data: Float32Array.from(inverse.filter((_, i) => i % size < n && Math.floor(i / size) < n)),
    };
    assertInverse(factor, block);
  }
});
