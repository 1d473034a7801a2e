import { assertEquals, assertGreater, assertLess, assertRejects } from "@std/assert";
import { CpuDevice, type CpuTensor, type Device, openDevice } from "@lora-loom/tensor";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import { IterisError } from "../errors.ts";
import { factorOnDevice } from "./device_factor.ts";
import { type Conditioning, factorOnHost } from "./host_factor.ts";

const conditioning: Conditioning = { roundoff: 2 ** -24, regularised: true, where: "here" };
const host = new CpuDevice();
const TILE = 32;

/** XᵀX of rows with columns that shrink to `smallest` and share directions, as float32 holds it. */
function gramOf(rows: number, n: number, smallest: number, seed: number): Float64Array<ArrayBuffer> {
  const noise = gaussians(rows * n, seed);
  const common = gaussians(rows, seed + 1);
  const x = noise.map((value, i) => (value + 3 * common[Math.floor(i / n)]!) * smallest ** ((i % n) / n));
  const gram = new Float64Array(n * n);
  for (let t = 0; t < rows; t++) {
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) gram[i * n + j]! += x[t * n + i]! * x[t * n + j]!;
  }
  return gram.map(Math.fround);
}

function frobenius(x: Float64Array): number {
  return Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));
}

/** What the GPU solver gives, and what float64 does. */
async function both(device: Device, gram: Float64Array<ArrayBuffer>, n: number, ridge: number) {
  const right = gaussians(5 * n, 9).map(Math.fround);
  using uploaded = device.upload(gram, [n, n]);
  using factor = await factorOnDevice(uploaded, ridge, conditioning, TILE);
  using rows = device.upload(right, [5, n]);
  const solved = await factor.solve(rows);
  using x = solved.x;
  using z = await factor.half(rows);
  const exact = await factorOnHost(host.upload(gram, [n, n]), ridge, conditioning);
  const expected = await exact.solve(host.upload(right, [5, n]));
  const expectedHalf = await exact.half(host.upload(right, [5, n]));
  return {
    ...solved,
    x: await device.download(x),
    z: await device.download(z),
    expected: (expected.x as CpuTensor).floats,
    expectedHalf: (expectedHalf as CpuTensor).floats,
    condition: [factor.condition, exact.condition] as const,
    shift: factor.shift,
  };
}

Deno.test("factorOnDevice() solves like float64, whatever the tiling", async () => {
  await using device = await openDevice({ device: "software" });
  for (const n of [1, 31, 32, 65, 130]) {
    const gram = gramOf(3 * n, n, 1e-2, n);
    const result = await both(device, gram, n, 1e-4 * frobenius(gram));
    assertRelativelyClose(result.x, result.expected, 1e-6, `n = ${n}`);
    assertRelativelyClose(products(result.z, 5, n), products(result.expectedHalf, 5, n), 1e-4);
    assertLess(result.backwardError, 1e-14);
    assertEquals(result.shift, 0);
  }
});

/** Z Zᵀ: the factor itself depends on the scaling. */
function products(z: ArrayLike<number>, m: number, n: number): Float64Array<ArrayBuffer> {
  return Float64Array.from({ length: m * m }, (_, index) => {
    let sum = 0;
    for (let k = 0; k < n; k++) sum += z[Math.floor(index / m) * n + k]! * z[(index % m) * n + k]!;
    return sum;
  });
}

Deno.test("factorOnDevice() refines an ill-conditioned system far below what f32 alone gives", async () => {
  await using device = await openDevice({ device: "software" });
  const n = 100;
  const gram = gramOf(60, n, 1e-1, 3);
  const result = await both(device, gram, n, 1e-6 * frobenius(gram));
  assertGreater(result.condition[1], 1e4);
  assertRelativelyClose([result.condition[0]], [result.condition[1]], 0.5);
  assertRelativelyClose(result.x, result.expected, 1e-6);
  assertLess(result.backwardError, 1e-14);
  assertGreater(result.iterations, 1);
});

Deno.test("factorOnDevice() falls back on conjugate gradients when an f32 factor is not good enough", async () => {
  await using device = await openDevice({ device: "software" });
  const [n, ridge] = [96, 2e-8];
  const gram = gramOf(40, n, 1, 4);
  const result = await both(device, gram, n, ridge * frobenius(gram));
  assertGreater(result.condition[1], 1e7);
  assertGreater(result.iterations, 20);
  assertRelativelyClose(result.x, result.expected, 1e-6);
});

Deno.test("factorOnDevice() shifts the matrix when f32 cannot factor it, and solves it as it is", async () => {
  await using device = await openDevice({ device: "software" });
  const [n, ridge] = [200, 1e-8];
  const gram = gramOf(92, n, 1, 4);
  const result = await both(device, gram, n, ridge * frobenius(gram));
  assertGreater(result.shift, 0);
  assertRelativelyClose(result.x, result.expected, 1e-5);
});

Deno.test("factorOnDevice() throws singular_system when nothing comes near a solution", async () => {
  await using device = await openDevice({ device: "software" });
  const n = 96;
  const gram = gramOf(40, n, 1, 4);
  using uploaded = device.upload(gram, [n, n]);
  using rows = device.upload(gaussians(5 * n, 9), [5, n]);
  const error = await assertRejects(async () => {
    using factor = await factorOnDevice(uploaded, 1e-11 * frobenius(gram), conditioning, TILE);
    await factor.solve(rows);
  }, IterisError);
  assertEquals([error.code, error.where], ["singular_system", "here"]);
});

Deno.test("factorOnDevice() throws singular_system when the Gram matrix has too few rows and no ridge", async () => {
  await using device = await openDevice({ device: "software" });
  for (const n of [20, 70]) {
    using gram = device.upload(gramOf(n - 5, n, 1, 2), [n, n]);
    const error = await assertRejects(
      () => factorOnDevice(gram, 0, { ...conditioning, regularised: false, where: "layers.0.q" }, TILE),
      IterisError,
    );
    assertEquals([error.code, error.where], ["singular_system", "layers.0.q"]);
  }
});

Deno.test("factorOnDevice() gives all memory back when it is disposed", async () => {
  await using device = await openDevice({ device: "software" });
  const gram = gramOf(200, 70, 1e-1, 5);
  await both(device, gram, 70, 1e-4 * frobenius(gram));
  assertEquals(device.memory.bytes, 0);
});
