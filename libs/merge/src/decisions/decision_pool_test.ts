import { assertEquals, assertRejects } from "@std/assert";
import { CpuDevice } from "@lora-loom/tensor";
import { LegoError, mergeModule, truncateSum } from "@lora-loom/lego";
import { gaussians } from "@lora-loom/testing";
import { DecisionPool } from "./decision_pool.ts";

const [IN, OUT, RANK] = [40, 30, 6];

function adapters(device: CpuDevice) {
  return [1, 2, 3].map((seed) => ({
    a: device.upload(gaussians(RANK * IN, seed), [RANK, IN]),
    b: device.upload(gaussians(OUT * RANK, 10 * seed), [OUT, RANK]),
    scale: 2,
    weight: seed === 2 ? -1 : 1,
  }));
}

async function entriesOf(
  device: CpuDevice,
  { a, b }: { a: Parameters<CpuDevice["download"]>[0]; b: typeof a },
) {
  return [...await device.download(a), ...await device.download(b)];
}

// One pool for all steps: starting a thread is what takes time.
Deno.test("DecisionPool", async (t) => {
  await using pool = new DecisionPool(2);

  await t.step(
    "decides in its threads exactly what is decided here, questions about factors included",
    async () => {
      const device = new CpuDevice();
      const sources = adapters(device);
      const options = [{ rank: 5 }, { rank: 7, sign: "argmax" }, { rank: 4, parameter_reweight: "none" }, {
        rank: 9,
      }] as const;
      const there = await Promise.all(
        options.map((option) => mergeModule(sources, option, (...input) => pool.clusters(...input))),
      );
      for (const [index, option] of options.entries()) {
        const here = await mergeModule(sources, option);
        assertEquals(there[index]!.report, here.report);
        assertEquals(await entriesOf(device, there[index]!), await entriesOf(device, here));
      }
    },
  );

  await t.step("truncates in its threads exactly as here", async () => {
    const device = new CpuDevice();
    const sources = adapters(device);
    const [there, here] = [
      await truncateSum(sources, { rank: 4 }, (...input) => pool.truncation(...input)),
      await truncateSum(sources, { rank: 4 }),
    ];
    assertEquals(there.report, here.report);
    assertEquals(await entriesOf(device, there), await entriesOf(device, here));
  });

  await t.step("passes errors on and goes on working", async () => {
    const device = new CpuDevice();
    const sources = adapters(device);
    const inPool = (options: object) => mergeModule(sources, options, (...input) => pool.clusters(...input));
    const error = await assertRejects(() => inPool({ rank: 99 }), LegoError);
    assertEquals(error.code, "rank_out_of_range");
    assertEquals((await inPool({ rank: 3 })).report.rank, 3);
  });

  await t.step("hands on the error of a question that cannot be answered", async () => {
    const device = new CpuDevice();
    const failing = mergeModule(
      adapters(device),
      { rank: 3 },
      (stack, options) =>
        pool.clusters(stack, options, {
          largest: () => Promise.reject(new Error("lost")),
          signs: () => Promise.reject(new Error("lost")),
        }),
    );
    assertEquals((await assertRejects(() => failing)).message, "lost");
  });
});
