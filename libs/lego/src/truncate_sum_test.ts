import { assert, assertAlmostEquals, assertEquals, assertLess, assertRejects } from "@std/assert";
import { assertRelativelyClose, relativeError } from "@lora-loom/testing";
import { CpuDevice, singularValues } from "@lora-loom/tensor";
import { LegoError } from "./errors.ts";
import { lego, legoPlus } from "./options.ts";
import { denseSum, type HostAdapter, randomAdapter } from "./test_support/dense_oracle.ts";
import { testOnDevices } from "./test_support/devices.ts";
import { collect, mergeHost, uploadAdapters } from "./test_support/run.ts";
import { truncateSum } from "./truncate_sum.ts";

const SHAPE = { inputs: 30, outputs: 24 };
const adapters = [3, 5, 4].map((rank, t) =>
  randomAdapter({ ...SHAPE, rank, seed: t, scale: 2 - t / 2, weight: t === 1 ? -1 : 1 })
);

testOnDevices(
  "truncateSum() attains the error of Eckart and Young at every rank",
  async ({ device, tolerance }) => {
    const sum = denseSum(adapters);
    // The oracle decomposes the dense sum; the program never forms it.
    const sigma = singularValues(sum, SHAPE.outputs, SHAPE.inputs);
    const all = sigma.reduce((total, x) => total + x * x, 0);
    for (let rank = 1; rank <= 12; rank++) {
      const result = await truncateSum(uploadAdapters(device, adapters), { rank });
      const { delta, rank: found } = await collect(device, result);
      const best = Math.sqrt(sigma.subarray(rank).reduce((total, x) => total + x * x, 0) / all);
      assertEquals(found, rank);
      assertAlmostEquals(relativeError(delta, sum), best, 2 * tolerance);
      assertAlmostEquals(result.report.bestLoss, best, 1e-3, "reported");
      assertAlmostEquals(result.report.loss, result.report.bestLoss, Math.sqrt(tolerance), "it is the best");
    }
  },
);

testOnDevices(
  "truncateSum() gives the sum at full rank, also of dependent and uneven factors",
  async ({ device, tolerance }) => {
    const doubled = [adapters[0]!, adapters[0]!, adapters[1]!];
    const { delta, rank } = await collect(
      device,
      await truncateSum(uploadAdapters(device, doubled), { rank: 11 }),
    );
    assert(rank <= 11);
    assertRelativelyClose(delta, denseSum(doubled), tolerance);
    const scaled = adapters.map((adapter): HostAdapter => ({
      ...adapter,
      a: adapter.a.map((x) => x * 1024),
      b: adapter.b.map((x) => x / 1024),
    }));
    const uneven = await collect(device, await truncateSum(uploadAdapters(device, scaled), { rank: 12 }));
    assertRelativelyClose(uneven.delta, denseSum(scaled), tolerance);
  },
);

testOnDevices("truncateSum() is closer to the sum than any clustering", async ({ device }) => {
  const best = (await truncateSum(uploadAdapters(device, adapters), { rank: 6 })).report.loss;
  for (const preset of [lego, legoPlus]) {
    const { report } = await mergeHost(device, adapters, { ...preset, rank: 6 });
    assertLess(best, report.loss);
    assertAlmostEquals(report.bestLoss, best, 1e-3);
  }
});

Deno.test("truncateSum() refuses ranks out of range and handles zero deltas", async () => {
  const device = new CpuDevice();
  for (const rank of [0, 13]) {
    const error = await assertRejects(
      () => truncateSum(uploadAdapters(device, adapters), { rank }),
      LegoError,
    );
    assertEquals(error.code, "rank_out_of_range");
  }
  const zero = adapters.map((adapter) => ({ ...adapter, weight: 0 }));
  const { delta, rank } = await collect(device, await truncateSum(uploadAdapters(device, zero), { rank: 4 }));
  assertEquals(rank, 1);
  assert(delta.every((x) => x === 0));
});
