import { assert, assertEquals, assertLess } from "@std/assert";
import { type Device, openDevice } from "@lora-loom/tensor";
import { gaussians } from "@lora-loom/testing";
import { accumulateProducts } from "./accumulate_products.ts";
import { shiftDiagonal } from "./add_to_diagonal.ts";
import { addToPair } from "./add_to_pair.ts";
import { equilibrate } from "./equilibrate.ts";
import { testOnEachDevice, testOnGpu } from "../test_support/devices.ts";
import { productSquares, squaresKernel, unstoredSquares } from "./product_squares.ts";
import { residual } from "./residual.ts";

/** Normal numbers that float32 holds exactly. */
function singles(count: number, seed: number, factor = 1): Float64Array<ArrayBuffer> {
  return gaussians(count, seed).map((x) => Math.fround(x * factor));
}

for (const [m, n] of [[1, 1], [3, 65], [9, 129]] as const) {
  testOnEachDevice(`residual() keeps 42 bits of what cancels for shape [${m}, ${n}]`, async (device) => {
    const [high, low, matrix] = [singles(m * n, 1), singles(m * n, 2, 1e-8), singles(n * n, 3)];
    const product = new Float64Array(m * n);
    const magnitude = new Float64Array(m * n);
    for (let i = 0; i < m; i++) {
      for (let k = 0; k < n; k++) {
        for (let j = 0; j < n; j++) {
          const term = (high[i * n + k]! + low[i * n + k]!) * matrix[k * n + j]!;
          product[i * n + j]! += term;
          magnitude[i * n + j]! += Math.abs(term);
        }
      }
    }
    const diagonal = singles(n, 4, 1e-6);
    for (let i = 0; i < m * n; i++) product[i]! += (high[i]! + low[i]!) * diagonal[i % n]!;
    const target = product.map(Math.fround);
    const result = await device.download(residual(
      device.upload(target, [m, n]),
      device.upload(high, [m, n]),
      device.upload(low, [m, n]),
      { matrix: device.upload(matrix, [n, n]), diagonal: device.upload(diagonal, [n]) },
    ));
    result.forEach((value, i) =>
      assertLess(
        Math.abs(value - (target[i]! - product[i]!)),
        2 ** -42 * magnitude[i]! + 2 ** -24 * Math.abs(value),
      )
    );
  });
}

testOnEachDevice("accumulateProducts() sums a thousand times more accurately than f32", async (device) => {
  for (const [tokens, m, n] of [[1, 1, 1], [300, 9, 65], [130, 17, 7]] as const) {
    const [x, y] = [singles(tokens * m, 1), singles(tokens * n, 2)];
    const weights = singles(tokens, 3).map((value) => value > 0 ? 1 : 0.25);
    const expected = new Float64Array(m * n);
    const magnitude = new Float64Array(m * n);
    for (let t = 0; t < tokens; t++) {
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < n; j++) {
          const term = weights[t]! * x[t * m + i]! * y[t * n + j]!;
          expected[i * n + j]! += 2 * term;
          magnitude[i * n + j]! += 2 * Math.abs(term);
        }
      }
    }
    const [high, low] = [device.zeros([m, n]), device.zeros([m, n])];
    for (let batch = 0; batch < 2; batch++) {
      accumulateProducts(
        device.upload(x, [tokens, m]),
        device.upload(y, [tokens, n]),
        device.upload(weights, [tokens]),
        high,
        low,
      );
    }
    const [highs, lows] = [await device.download(high), await device.download(low)];
    expected.forEach((value, i) =>
      assertLess(Math.abs(highs[i]! + lows[i]! - value), 2 ** -33 * magnitude[i]! + Number.MIN_VALUE)
    );
  }
});

testOnEachDevice("addToPair() adds in twice the usual precision", async (device) => {
  const count = 1000;
  const [high, low] = [device.upload(singles(count, 1), [10, 100]), device.zeros([10, 100])];
  const expected = singles(count, 1);
  for (let step = 0; step < 20; step++) {
    const change = singles(count, 10 + step, 10 ** -step);
    addToPair(high, low, device.upload(change, [10, 100]));
    change.forEach((value, i) => expected[i]! += value);
  }
  const [highs, lows] = [await device.download(high), await device.download(low)];
  expected.forEach((value, i) => assertLess(Math.abs(highs[i]! + lows[i]! - value), 2 ** -40 * 4));
});

testOnEachDevice("equilibrate() scales by powers of two to a diagonal in [1, 4)", async (device) => {
  const n = 70;
  const roots = singles(n, 1).map((x, i) => Math.fround((0.5 + Math.abs(x)) * 10 ** (i / 10 - 3)));
  const gram = Float64Array.from({ length: n * n }, (_, index) => {
    const [i, j] = [Math.floor(index / n), index % n];
    return Math.fround(roots[i]! * roots[j]! * (i === j ? 1 : 0.25));
  });
  const ridge = 2 ** -10;
  const { matrix, diagonal, scales } = equilibrate(device.upload(gram, [n, n]), ridge);
  const [scaled, factors] = [await device.download(matrix), await device.download(scales)];
  const ridges = await device.download(diagonal);
  assertEquals([...scaled], [
    ...gram.map((value, i) => value * factors[Math.floor(i / n)]! * factors[i % n]!),
  ]);
  assertEquals([...ridges], [...factors].map((factor) => ridge * factor * factor));
  for (let i = 0; i < n; i++) {
    assertEquals(Number.isInteger(Math.log2(factors[i]!)), true);
    const total = scaled[i * n + i]! + ridges[i]!;
    assert(total >= 0.999 && total < 4, `diagonal ${total}`);
  }
});

Deno.test("equilibrate() and shiftDiagonal() work in blocks of rows when a matrix exceeds one binding", async () => {
  const n = 150;
  const gram = singles(n * n, 1).map((value, i) => i % (n + 1) === 0 ? 100 + i : value);
  const results: number[][] = [];
  for (const limit of [{}, { maxBindingBytes: 2 ** 16 }]) {
    await using device = await openDevice({ device: "auto", poison: true, ...limit });
    using matrix = device.upload(gram, [n, n]);
    shiftDiagonal(matrix, 2);
    const scaled = equilibrate(matrix, 0.5);
    const parts = [matrix, scaled.matrix, scaled.diagonal, scaled.scales];
    results.push((await Promise.all(parts.map(async (part) => [...await device.download(part)]))).flat());
  }
  assertEquals(results[1], results[0]);
});

/** The kernel for hardware at its smallest, which software drivers compile in a fraction of the time. */
const SMALL_SQUARES = squaresKernel(4);

for (const [m, n, inner] of [[1, 1, 1], [70, 90, 24], [65, 1100, 17]] as const) {
  const name = `‖diag(w) X Cᵀ‖² of [${m}, ${inner}] and [${n}, ${inner}]`;
  const [rows, outputs, weights] = [singles(m * inner, 1), singles(n * inner, 2), singles(m, 3)];
  let expected = 0;
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let k = 0; k < inner; k++) sum += rows[i * inner + k]! * outputs[j * inner + k]!;
      expected += (weights[i]! * sum) ** 2;
    }
  }
  const check = async (device: Device, squares: typeof productSquares) => {
    using x = device.upload(rows, [m, inner]);
    using c = device.upload(outputs, [n, inner]);
    using w = device.upload(weights, [m]);
    using found = squares(x, c, w);
    assertEquals(found.shape, [1]);
    assertLess(Math.abs((await device.download(found))[0]! - expected), 1e-5 * expected);
  };
  testOnEachDevice(`productSquares() gives ${name}`, (device) => check(device, productSquares));
  testOnGpu(
    `the kernel for hardware gives ${name}`,
    (device) => check(device, (...factors) => unstoredSquares(...factors, SMALL_SQUARES)),
  );
}
