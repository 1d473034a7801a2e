import { assertEquals } from "@std/assert";
import { assertRelativelyClose } from "@lora-loom/testing";
import { CpuDevice } from "@lora-loom/tensor";
import { unitInfinityNorms } from "./factor_entries.ts";
import { FactorStack } from "./factor_stack.ts";
import { randomAdapter } from "./test_support/dense_oracle.ts";
import { testOnDevices } from "./test_support/devices.ts";
import { uploadAdapters } from "./test_support/run.ts";
import { formUnits, regauge } from "./unit_pool.ts";

const SHAPE = { inputs: 9, outputs: 70 };
const adapters = [2, 3].map((rank, t) =>
  randomAdapter({ ...SHAPE, rank, seed: t, scale: 3, weight: t === 0 ? 1 : -2 })
);

testOnDevices(
  "unitInfinityNorms() equals the largest magnitudes of the folded vectors",
  async ({ device, tolerance }) => {
    using stack = new FactorStack(uploadAdapters(device, adapters));
    const pool = formUnits(await stack.describe(), { basis: "native", alpha_fold: "b" });
    const expected = pool.owners.map((owner, i) => {
      const { a, b, rank, scale, weight } = adapters[owner]!;
      const index = pool.indices[i]!;
      const row = [...a.subarray(index * SHAPE.inputs, (index + 1) * SHAPE.inputs)];
      const column = [...b].filter((_, x) => x % rank === index).map((x) => scale * weight * x);
      return Math.max(...[...row, ...column].map(Math.abs));
    });
    assertRelativelyClose(await unitInfinityNorms(pool, stack), Float64Array.from(expected), tolerance);
  },
);

Deno.test("unitInfinityNorms() gives the same from the stack's norms as from products", async () => {
  using stack = new FactorStack(uploadAdapters(new CpuDevice(), adapters));
  const pool = regauge(formUnits(await stack.describe(), { basis: "native", alpha_fold: "sqrt" }), [
    1,
    -2,
    3,
    -4,
    0.5,
  ]);
  const products: number[] = [];
  const counted = await unitInfinityNorms(pool, {
    signs: (combination) => stack.signs(combination),
    largest: (combination) => {
      products.push(combination?.k ?? 0);
      return stack.largest(combination ?? { k: 5, p: identity(5), q: identity(5) });
    },
  });
  assertEquals(products, [0], "single ranks need no product");
  assertRelativelyClose(counted, await unitInfinityNorms(pool, stack), 1e-15);
});

function identity(n: number): Float64Array<ArrayBuffer> {
  return Float64Array.from({ length: n * n }, (_, x) => x % (n + 1) === 0 ? 1 : 0);
}

testOnDevices("FactorStack.signs() follows the entry of largest magnitude", async ({ device }) => {
  const a = Float64Array.of(1, -3, 2, -1, 2, 1, 4, -4, 0);
  const adapter = { a, b: new Float64Array(6).fill(1), rank: 3, scale: 1, weight: 1 };
  using stack = new FactorStack(uploadAdapters(device, [adapter]));
  assertEquals(await stack.signs({ k: 3, p: identity(3) }), [-1, 1, 1]);
  assertEquals(await stack.signs({ k: 1, p: Float64Array.of(0, -1, 0) }), [-1]);
});
