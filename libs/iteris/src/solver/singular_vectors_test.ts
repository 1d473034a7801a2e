import { assertAlmostEquals, assertEquals, assertGreater } from "@std/assert";
import { CpuDevice, type Device, gemm, svd, type Tensor } from "@lora-loom/tensor";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import { squaredNorm } from "../algebra.ts";
import { testOnEachDevice } from "../test_support/devices.ts";
import { leadingLeftVectors } from "./singular_vectors.ts";

/** A random matrix whose columns shrink, so that singular values fall from 1 to about 1e-3. */
function decaying(m: number, n: number, seed: number): Float64Array<ArrayBuffer> {
  return gaussians(m * n, seed).map((x, i) => x * 10 ** (-3 * (i % n) / n));
}

async function assertOrthonormal(basis: Tensor, tolerance: number): Promise<void> {
  const columns = basis.shape[1]!;
  const products = await basis.device.download(gemm(basis, basis, { transposeA: true }));
  const identity = Float64Array.from({ length: columns ** 2 }, (_, i) => i % (columns + 1) === 0 ? 1 : 0);
  assertRelativelyClose(products, identity, tolerance);
}

/** ‖Uᵀ Z‖² / ‖Z‖². */
async function captured(basis: Tensor, z: Tensor): Promise<number> {
  return await squaredNorm(gemm(basis, z, { transposeA: true })) / await squaredNorm(z);
}

async function check(device: Device, tolerance: number): Promise<void> {
  for (const [m, n] of [[40, 60], [60, 40]] as const) {
    const values = decaying(m, n, m);
    const z = device.upload(values, [m, n]);
    const { values: singular } = m >= n ? svd(values, m, n) : svd(transposed(values, m, n), n, m);
    const energies = [...singular].map((value) => value ** 2);
    const total = energies.reduce((sum, value) => sum + value, 0);
    for (const rank of [1, 5, 12]) {
      const best = energies.slice(0, rank).reduce((sum, value) => sum + value, 0) / total;
      const exact = await leadingLeftVectors(z, rank);
      assertEquals(exact.shape, [m, rank]);
      await assertOrthonormal(exact, tolerance);
      assertAlmostEquals(await captured(exact, z), best, tolerance);
      const iterated = await leadingLeftVectors(z, rank, 0);
      assertEquals(iterated.shape, [m, rank]);
      await assertOrthonormal(iterated, tolerance);
      assertGreater(await captured(iterated, z), best - 1e-5);
    }
  }
}

function transposed(x: Float64Array, rows: number, columns: number): Float64Array<ArrayBuffer> {
  return Float64Array.from({ length: x.length }, (_, i) => x[(i % rows) * columns + Math.floor(i / rows)]!);
}

testOnEachDevice("leadingLeftVectors() captures what the SVD does", async (device) => {
  await check(device, device.info.backend === "cpu" ? 1e-12 : 3e-6);
});

Deno.test("leadingLeftVectors() gives no more vectors than the matrix has dimensions", async () => {
  const device = new CpuDevice();
  const z = gemm(device.upload(gaussians(60 * 3, 1), [60, 3]), device.upload(gaussians(3 * 50, 2), [3, 50]));
  for (const limit of [1000, 0]) assertEquals((await leadingLeftVectors(z, 8, limit)).shape, [60, 3]);
});

Deno.test("leadingLeftVectors() gives one vector when the matrix is zero", async () => {
  const device = new CpuDevice();
  for (const limit of [1000, 0]) {
    const basis = await leadingLeftVectors(device.zeros([60, 50]), 8, limit);
    assertEquals(basis.shape, [60, 1]);
    await assertOrthonormal(basis, 1e-12);
  }
});
