import { assertEquals, assertLess, assertLessOrEqual } from "@std/assert";
import type { GpuDevice } from "../gpu/gpu_device.ts";
import { wholeMatrix } from "../gpu/matrix_view.ts";
import { choleskyFactorBlock, invertTriangularBlock } from "../kernels/cholesky_block.ts";
import { choleskyPanel } from "../kernels/cholesky_panel.ts";
import { PACKED_K, PACKED_ROWS } from "../kernels/pack_halves.ts";
import { norm, positiveDefinite, products, randomMatrix, transposed } from "../test_support/matrices.ts";
import { openTestGpu, testGpu } from "../test_support/devices.ts";
import { blockKernels, queueFactorByPanels } from "./cholesky_panels.ts";

/** Software drivers take minutes to compile the kernels of hardware's sizes. */
const SHAPE = { block: 32, rows: 8, groups: 2 };
const SIZE = SHAPE.block;
const KERNELS = blockKernels(
  SHAPE,
  choleskyFactorBlock(SIZE),
  invertTriangularBlock(SIZE),
);

async function assertFactorsByPanels(device: GpuDevice, n: number): Promise<void> {
  const a = positiveDefinite(n, 0.1, n);
  using lower = device.upload(a.data, [n, n]);
  using inverses = device.empty([Math.ceil(n / SIZE), SIZE, SIZE]);
  using pivots = device.empty([n]);
  queueFactorByPanels(device, { lower: wholeMatrix(lower, "test"), inverses }, pivots, KERNELS);
  const found = await device.download(lower);
  const data = Float32Array.from(found, (value, i) => i % n > Math.floor(i / n) ? 0 : value);
  const factor = { rows: n, columns: n, data };
  const { sum } = products(factor, transposed(factor));
  assertLess(norm(sum.map((value, i) => value - a.data[i]!)) / norm(a.data), 1e-6, `n = ${n}`);
  (await device.download(pivots)).forEach((pivot, i) =>
    assertLess(Math.abs(Math.sqrt(pivot) - data[i * (n + 1)]!), 1e-5)
  );
}

Deno.test({
  name: "queueFactorByPanels() factors matrices of one block, of several that update together, and of more",
  // The device outlives the test, and with it Dawn's timers.
  sanitizeOps: false,
  sanitizeResources: false,
  async fn() {
    const device = await testGpu() as GpuDevice;
    // Rows of 33 and 135 elements cannot be read as vec4s.
    for (const n of [32, 33, 96, 135, 300]) await assertFactorsByPanels(device, n);
  },
});

Deno.test("queueFactorByPanels() works in windows when the matrix exceeds one binding", async () => {
  await using device = await openTestGpu({ maxBindingBytes: 65536 }) as GpuDevice;
  await assertFactorsByPanels(device, 200);
});

Deno.test({
  name: "choleskyPanel() solves a panel and packs it for matrix units",
  sanitizeOps: false,
  sanitizeResources: false,
  async fn() {
    const device = await testGpu() as GpuDevice;
    const [rows, row, chunk, chunks] = [71, 96, 3, 6];
    const panel = randomMatrix(rows, SIZE, 1);
    const inverse = randomMatrix(SIZE, SIZE, 2);
    inverse.data.forEach((_, i) => {
      if (i % SIZE > Math.floor(i / SIZE)) inverse.data[i] = 0;
    });
    const bound = 30;
    const bits = new Uint32Array(Float32Array.of(bound).buffer)[0]!;
    // What rows are divided by: 30 goes to [2¹⁴, 2¹⁵).
    const scale = 2 ** (4 - 14);
    using inverses = device.upload(inverse.data, [1, SIZE, SIZE]);
    using largest = device.upload(new Uint32Array(row + rows).fill(bits), [row + rows], "u32");
    const tiles = Math.ceil((row + rows) / PACKED_ROWS);
    const kernel = choleskyPanel({ ...SHAPE, vec4: true, copy: "halves" });
    using l = device.upload(panel.data, [rows, SIZE]);
    using packed = device.zeros([tiles * chunks * PACKED_ROWS * PACKED_K], "u32");
    const grid = [Math.ceil(rows / SHAPE.rows)] as const;
    device.dispatch(kernel, [l, inverses, largest, packed], [rows, SIZE, 0, 0, row, chunks, chunk], grid);

    const { sum, magnitude } = products(panel, transposed(inverse));
    const solved = await device.download(l);
    const halves = new Float16Array((await device.downloadBytes(packed)).buffer);
    let filled = 0;
    for (let i = 0; i < rows * SIZE; i++) {
      assertLessOrEqual(Math.abs(solved[i]! - sum[i]!), 1e-6 * magnitude[i]!);
      const [r, k] = [row + Math.floor(i / SIZE), i % SIZE];
      // [tile][chunk][part][half of the chunk][row][8]
      const unit = (Math.floor(r / PACKED_ROWS) * chunks + chunk + Math.floor(k / PACKED_K)) * 4 +
        Math.floor(k / 8) % 2;
      const parts = [0, 1].map((part) =>
        halves[((unit + 2 * part) * PACKED_ROWS + r % PACKED_ROWS) * 8 + k % 8]!
      );
      const error = Math.abs((parts[0]! + parts[1]!) * scale - solved[i]!);
      assertLessOrEqual(error, 2 ** -21 * Math.abs(solved[i]!) + 2 ** -38 * bound);
      filled += Number(parts[0] !== 0);
    }
    assertEquals(halves.filter((value) => value !== 0).length >= filled, true);
    assertLessOrEqual(halves.filter((value) => value !== 0).length, 2 * rows * SIZE);
  },
});
