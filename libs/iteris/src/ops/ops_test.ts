import { assert, assertEquals, assertLess } from "@std/assert";
import { addToPair, type Device, openDevice, type Tensor } from "@lora-loom/tensor";
import { gaussians } from "@lora-loom/testing";
import { accumulateProducts } from "./accumulate_products.ts";
import { shiftDiagonal } from "./add_to_diagonal.ts";
import { equilibrate } from "./equilibrate.ts";
import { testOnEachDevice, testOnGpu } from "../test_support/devices.ts";
import { type ComparedOutputs, errorSquares, unstoredErrorSquares } from "./error_squares.ts";
import { residual } from "./residual.ts";

/** Normal numbers that float32 holds exactly. */
function singles(count: number, seed: number, factor = 1): Float64Array<ArrayBuffer> {
  return gaussians(count, seed).map((x) => Math.fround(x * factor));
}

for (const [m, n] of [[1, 1], [3, 65], [9, 129]] as const) {
  testOnEachDevice(`residual() keeps 42 bits of what cancels for shape [${m}, ${n}]`, async (device) => {
    const [high, low, entries] = [singles(m * n, 1), singles(m * n, 2, 1e-8), singles(n * n, 3)];
    // Symmetric, and with a diagonal that makes it positive definite.
    const entry = (i: number, j: number) =>
      i === j ? 3 * Math.sqrt(n) : entries[i < j ? i * n + j : j * n + i]!;
    const matrix = entries.map((_, index) => Math.fround(entry(Math.floor(index / n), index % n)));
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

for (const [m, n, ranks] of [[1, 1, [1, 1, 1]], [70, 90, [8, 16, 24]], [65, 1100, [0, 17, 3]]] as const) {
  const [, rank, stackedRank] = ranks;
  const [expertWidth, mergedWidth] = [ranks[0] + 2, rank + stackedRank + 5];
  const [expert, merged] = [singles(m * expertWidth, 1), singles(m * mergedWidth, 2)];
  const factors = ranks.map((r, i) => singles(n * r, 3 + i));
  const weights = singles(m, 6);
  const firsts = [1, 0, rank + 4];

  const expected = [0, 0, 0, 0];
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      const [target, solution, stacked] = ranks.map((r, which) => {
        const [inner, width] = which === 0 ? [expert, expertWidth] : [merged, mergedWidth];
        let sum = 0;
        for (let k = 0; k < r; k++) {
          sum += inner[i * width + firsts[which]! + k]! * factors[which]![j * r + k]!;
        }
        return sum;
      }) as [number, number, number];
      [target, target - solution, target - stacked, target - stacked / 3].forEach((value, figure) =>
        expected[figure]! += (weights[i]! * value) ** 2
      );
    }
  }
  const check = async (device: Device, squares: (outputs: ComparedOutputs) => Tensor) => {
    using owned = new DisposableStack();
    const upload = (values: Float64Array<ArrayBuffer>, shape: number[]) =>
      owned.use(device.upload(values, shape));
    const inners = [upload(expert, [m, expertWidth]), upload(merged, [m, mergedWidth])] as const;
    const [target, solution, stacked] = ranks.map((r, which) => ({
      inner: inners[which === 0 ? 0 : 1],
      first: firsts[which]!,
      b: upload(factors[which]!, [n, r]),
    }));
    using found = squares({
      target: ranks[0] > 0 ? target : undefined,
      solution: solution!,
      stacked: stacked!,
      meanFactor: 1 / 3,
      rootWeights: upload(weights, [m]),
    });
    assertEquals(found.shape, [4]);
    (await device.download(found)).forEach((value, figure) =>
      assertLess(Math.abs(value - expected[figure]!), 1e-5 * expected[figure]! + Number.MIN_VALUE)
    );
  };
  const name = `of [${m}, ${n}] outputs by ranks ${ranks}`;
  testOnEachDevice(`errorSquares() gives the errors ${name}`, (device) => check(device, errorSquares));
  testOnGpu(
    `the kernel for hardware gives the errors ${name}`,
    (device) => check(device, unstoredErrorSquares),
  );
}
