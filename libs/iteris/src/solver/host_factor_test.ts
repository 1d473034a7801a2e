import { assertEquals, assertGreater, assertLess, assertRejects } from "@std/assert";
import { CpuDevice } from "@lora-loom/tensor";
import { assertRelativelyClose, gaussians } from "@lora-loom/testing";
import { IterisError } from "../errors.ts";
import { type Conditioning, factorOnHost } from "./host_factor.ts";

const device = new CpuDevice();
const conditioning: Conditioning = { roundoff: 2 ** -53, regularised: true, where: "here" };

/** XᵀX of random rows, the columns scaled from 1 down to `smallest`. */
function gramOf(rows: number, n: number, smallest: number, seed: number): Float64Array<ArrayBuffer> {
  const x = gaussians(rows * n, seed).map((value, i) => value * smallest ** ((i % n) / Math.max(n - 1, 1)));
  const gram = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      for (let t = 0; t < rows; t++) gram[i * n + j]! += x[t * n + i]! * x[t * n + j]!;
    }
  }
  return gram;
}

/** x · G by hand. */
function times(x: Float64Array, g: Float64Array, m: number, n: number): Float64Array<ArrayBuffer> {
  const product = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let k = 0; k < n; k++) {
      for (let j = 0; j < n; j++) product[i * n + j]! += x[i * n + k]! * g[k * n + j]!;
    }
  }
  return product;
}

Deno.test("factorOnHost() solves X G = N to float64 accuracy, also when the columns' scales differ by 1e6", async () => {
  for (const [n, m] of [[1, 1], [7, 3], [65, 9]] as const) {
    const gram = gramOf(2 * n, n, 1e-6, n);
    const expected = gaussians(m * n, 5);
    const factor = await factorOnHost(device.upload(gram, [n, n]), 0, {
      ...conditioning,
      regularised: false,
    });
    const { x, backwardError } = await factor.solve(device.upload(times(expected, gram, m, n), [m, n]));
    assertRelativelyClose(await device.download(x), expected, 1e-10);
    assertLess(backwardError, 1e-15);
    assertEquals([factor.solver, factor.shift], ["cpu_float64", 0]);
  }
});

Deno.test("factorOnHost() adds the ridge to the diagonal", async () => {
  const gram = device.upload(gramOf(4, 4, 1, 1), [4, 4]);
  const withRidge = gramOf(4, 4, 1, 1).map((value, i) => value + (i % 5 === 0 ? 0.25 : 0));
  const expected = gaussians(8, 6);
  const factor = await factorOnHost(gram, 0.25, conditioning);
  const { x } = await factor.solve(device.upload(times(expected, withRidge, 2, 4), [2, 4]));
  assertRelativelyClose(await device.download(x), expected, 1e-12);
});

Deno.test("factorOnHost() halves so that Z Zᵀ = X G Xᵀ", async () => {
  const [n, m] = [12, 5];
  const gram = gramOf(30, n, 1e-2, 3);
  const factor = await factorOnHost(device.upload(gram, [n, n]), 0, conditioning);
  const x = gaussians(m * n, 4);
  const image = times(x, gram, m, n);
  const z = await device.download(await factor.half(device.upload(image, [m, n])));
  const square = (left: ArrayLike<number>, right: ArrayLike<number>) =>
    Array.from({ length: m * m }, (_, index) => {
      let sum = 0;
      for (let k = 0; k < n; k++) sum += left[Math.floor(index / m) * n + k]! * right[(index % m) * n + k]!;
      return sum;
    });
  assertRelativelyClose(square(z, z), square(image, x), 1e-12);
});

Deno.test("factorOnHost() estimates the condition number of the scaled system", async () => {
  const gram = Float64Array.of(4, 0.9 * 2, 0.9 * 2, 1); // scaled: [1, .9; .9, 1], eigenvalues 1.9 and 0.1
  const { condition } = await factorOnHost(device.upload(gram, [2, 2]), 0, conditioning);
  assertGreater(condition, 18);
  assertLess(condition, 19.01);
});

Deno.test("factorOnHost() throws singular_system when the Gram matrix has too few rows and no ridge", async () => {
  for (const roundoff of [2 ** -53, 2 ** -24]) {
    const gram = device.upload(
      gramOf(5, 9, 1, 2).map((value) => roundoff > 1e-10 ? Math.fround(value) : value),
      [9, 9],
    );
    const error = await assertRejects(
      () => factorOnHost(gram, 0, { roundoff, regularised: false, where: "layers.0.q" }),
      IterisError,
    );
    assertEquals([error.code, error.where], ["singular_system", "layers.0.q"]);
    const factor = await factorOnHost(gram, 1e-3, conditioning);
    assertLess((await factor.solve(device.upload(gaussians(9, 1), [1, 9]))).backwardError, 1e-15);
  }
});

Deno.test("factorOnHost() throws singular_system when an input is always zero and there is no ridge", async () => {
  const gram = device.upload(Float64Array.of(1, 0, 0, 0), [2, 2]);
  await assertRejects(
    () => factorOnHost(gram, 0, { ...conditioning, regularised: false }),
    IterisError,
    "input 1 is zero",
  );
});
