import { gaussians } from "@lora-loom/testing";
import { assertEquals, assertLessOrEqual } from "@std/assert";
import type { Device } from "../device.ts";
import { openTestGpu, testOnEachDevice } from "../test_support/devices.ts";
import { positiveDefinite } from "../test_support/matrices.ts";
import { preciseResidual, type ResidualOptions } from "./precise_residual.ts";

interface System {
  readonly m: number;
  readonly n: number;
  readonly target: Float32Array<ArrayBuffer>;
  readonly high: Float32Array<ArrayBuffer>;
  readonly low: Float32Array<ArrayBuffer>;
  readonly matrix: Float32Array<ArrayBuffer>;
  readonly diagonal: Float32Array<ArrayBuffer>;
}

/** Rows of very different size, a matrix whose diagonal spans some powers of two, and a target that cancels nearly all of the product. */
function systemOf(m: number, n: number): System {
  const { data } = positiveDefinite(n, 1e-3, n);
  const scale = (i: number) => 2 ** (i % 5 - 2) * (1 + i / n);
  const matrix = data.map((value, i) => value * (scale(Math.floor(i / n)) * scale(i % n)));
  // Symmetric also after rounding.
  for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) matrix[j * n + i] = matrix[i * n + j]!;
  const high = Float32Array.from(
    gaussians(m * n, 1),
    (value, i) => value * 10 ** (Math.floor(i / n) % 3 * 4),
  );
  const low = Float32Array.from(gaussians(m * n, 2), (value, i) => value * 2 ** -26 * high[i]!);
  const diagonal = Float32Array.from(gaussians(n, 3), (value) => 1e-6 * Math.abs(value));
  const system = { m, n, high, low, matrix, diagonal, target: new Float32Array(m * n) };
  return { ...system, target: Float32Array.from(expectedOf(system).values, (value) => -value) };
}

/** The residual and Σ |x||g|, in float64. */
function expectedOf({ m, n, target, high, low, matrix, diagonal }: System) {
  const [values, magnitudes] = [Float64Array.from(target), new Float64Array(m * n)];
  for (let i = 0; i < m; i++) {
    for (let k = 0; k < n; k++) {
      const x = high[i * n + k]! + low[i * n + k]!;
      for (let j = 0; j < n; j++) {
        const term = x * (matrix[k * n + j]! + (j === k ? diagonal[k]! : 0));
        values[i * n + j]! -= term;
        magnitudes[i * n + j]! += Math.abs(term);
      }
    }
  }
  return { values, magnitudes };
}

async function assertPrecise(
  device: Device,
  m: number,
  n: number,
  options: ResidualOptions = {},
): Promise<void> {
  const system = systemOf(m, n);
  using target = device.upload(system.target, [m, n]);
  using high = device.upload(system.high, [m, n]);
  using low = device.upload(system.low, [m, n]);
  using matrix = device.upload(system.matrix, [n, n]);
  using diagonal = device.upload(system.diagonal, [n]);
  using residual = preciseResidual(target, high, low, { matrix, diagonal }, options);
  const found = await device.download(residual);
  assertEquals(residual.shape, [m, n]);
  const { values, magnitudes } = expectedOf(system);
  const bits = options.slicing === "coarse" ? 26 : 43;
  values.forEach((value, i) =>
    // The residual itself is rounded to f32; what else is off is relative to entries that may be larger than those of this sum.
    assertLessOrEqual(
      Math.abs(found[i]! - value),
      2 ** -23 * Math.abs(value) + 2 ** -bits * magnitudes[i]!,
      `${m} ${n} ${i}`,
    )
  );
}

testOnEachDevice(
  "preciseResidual() is exact to twice the usual precision when nearly all cancels",
  async (device) => {
    for (const [m, n] of [[1, 1], [3, 17], [9, 64], [33, 130], [2, 700]] as const) {
      await assertPrecise(device, m, n);
    }
  },
);

testOnEachDevice(
  "preciseResidual() keeps what a first step of refinement needs of coarse slices",
  async (device) => {
    for (const [m, n] of [[1, 1], [9, 64], [33, 130]] as const) {
      await assertPrecise(device, m, n, { slicing: "coarse" });
    }
  },
);

Deno.test("preciseResidual() works in windows when matrix and sums exceed one binding", async () => {
  await using device = await openTestGpu({ maxBindingBytes: 65536 });
  await assertPrecise(device, 40, 200);
});

testOnEachDevice("preciseResidual() leaves the target when X is zero", async (device) => {
  const target = Float32Array.from(gaussians(2 * 30, 4));
  using goal = device.upload(target, [2, 30]);
  using zero = device.zeros([2, 30]);
  using matrix = device.upload(positiveDefinite(30, 0.1, 5).data, [30, 30]);
  using diagonal = device.zeros([30]);
  using residual = preciseResidual(goal, zero, zero, { matrix, diagonal });
  assertEquals([...await device.download(residual)], [...target]);
});
