import { assertAlmostEquals, assertEquals } from "@std/assert";
import { CpuDevice, singularValues } from "@lora-loom/tensor";
import { lego } from "./options.ts";
import { denseSum, type HostAdapter, inner, randomAdapter } from "./test_support/dense_oracle.ts";
import { testOnDevices } from "./test_support/devices.ts";
import { mergeHost } from "./test_support/run.ts";

const SHAPE = { inputs: 21, outputs: 13 };
const adapters = [3, 5].map((rank, t) => randomAdapter({ ...SHAPE, rank, seed: t, scale: 1 + t }));

function rows({ a, rank }: HostAdapter): Float64Array[] {
  return Array.from({ length: rank }, (_, i) => a.subarray(i * SHAPE.inputs, (i + 1) * SHAPE.inputs));
}

function meanAbsCosine(pairs: readonly (readonly [Float64Array, Float64Array])[]): number {
  const cosines = pairs.map(([x, y]) => Math.abs(inner(x, y)) / Math.sqrt(inner(x, x) * inner(y, y)));
  return cosines.reduce((total, x) => total + x, 0) / cosines.length;
}

testOnDevices("the report's spectrum figures are those of the dense sum", async ({ device, tolerance }) => {
  const sigma = singularValues(denseSum(adapters), SHAPE.outputs, SHAPE.inputs);
  const squares = [...sigma].map((x) => x * x);
  const all = squares.reduce((total, x) => total + x, 0);
  const entropy = squares.filter((x) => x > 1e-20 * all).reduce(
    (total, x) => total - (x / all) * Math.log(x / all),
    0,
  );
  const { report } = await mergeHost(device, adapters, { rank: 3 });
  assertAlmostEquals(report.effectiveRank, Math.exp(entropy), 100 * tolerance);
  assertAlmostEquals(
    report.energyKept,
    squares.slice(0, 3).reduce((total, x) => total + x, 0) / all,
    10 * tolerance,
  );
});

testOnDevices(
  "the report's cosines are those of pairs within and across adapters",
  async ({ device, tolerance }) => {
    const [x, y] = [rows(adapters[0]!), rows(adapters[1]!)];
    const pairsOf = (list: Float64Array[]) =>
      list.flatMap((p, i) => list.slice(0, i).map((q) => [p, q] as const));
    const { report } = await mergeHost(device, adapters, { rank: 3 });
    assertAlmostEquals(report.cosinesA.within, meanAbsCosine([...pairsOf(x), ...pairsOf(y)]), 10 * tolerance);
    assertAlmostEquals(
      report.cosinesA.across,
      meanAbsCosine(x.flatMap((p) => y.map((q) => [p, q] as const))),
      10 * tolerance,
    );
  },
);

Deno.test("the report counts clusters by size, singletons and mixture", async () => {
  const [x, y] = [
    randomAdapter({ ...SHAPE, rank: 2, seed: 5 }),
    randomAdapter({ ...SHAPE, rank: 2, seed: 6 }),
  ];
  const { report } = await mergeHost(new CpuDevice(), [x, x, y], { rank: 4 });
  assertEquals(report.clusterSizes, [2, 2, 1, 1]);
  assertEquals(report.singletons, 2);
  assertEquals(report.mixedShare, 0.5);
});

Deno.test("rank defaults to twice the mean rank, at most the pool", async () => {
  const device = new CpuDevice();
  const ranks = async (...list: number[]) =>
    (await mergeHost(device, list.map((rank, seed) => randomAdapter({ ...SHAPE, rank, seed })), lego)).rank;
  assertEquals(await ranks(4, 4, 4), 8);
  assertEquals(await ranks(2, 4, 9), 10);
  assertEquals(await ranks(6), 6);
});
