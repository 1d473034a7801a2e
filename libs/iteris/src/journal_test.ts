import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Stage } from "./base_model.ts";
import type { HostMatrix, Journal, SolvedStage } from "./journal.ts";
import type { Merged } from "./run.ts";
import { testOnEachDevice } from "./test_support/devices.ts";
import { mergeToy, type Method } from "./test_support/merge_toy.ts";
import { SMALL, ToyModel, toyTask, toyWeights } from "./test_support/toy_model.ts";

const toy = toyWeights(SMALL, 5);
const tasks = [
  toyTask(toy, { name: "first", rank: 2, samples: 6, seed: 1 }),
  toyTask(toy, { name: "second", rank: 3, samples: 7, seed: 2, without: ["layers.0.k"] }),
];
/** Stages of a pass: q and k of a layer, then its o. */
const STAGES = 2 * SMALL.layers;

class PowerCut extends Error {}

/** A journal in memory, whose process dies once it has so many records. */
class MemoryJournal implements Journal {
  readonly recorded: string[] = [];

  constructor(readonly stages = new Map<string, SolvedStage>(), readonly diesAt = Infinity) {}

  holds(pass: number, { index }: Stage): boolean {
    return this.stages.has(`${pass} ${index}`);
  }

  replay(pass: number, { index }: Stage): Promise<SolvedStage> {
    return Promise.resolve(this.stages.get(`${pass} ${index}`)!);
  }

  record(pass: number, { index }: Stage, solved: SolvedStage): Promise<void> {
    assert(!this.stages.has(`${pass} ${index}`), `stage ${index} of pass ${pass} was solved twice`);
    this.recorded.push(`${pass} ${index}`);
    this.stages.set(`${pass} ${index}`, solved);
    return this.stages.size === this.diesAt ? Promise.reject(new PowerCut()) : Promise.resolve();
  }
}

async function hostDeltas({ deltas }: Merged): Promise<Record<string, readonly HostMatrix[]>> {
  const host: Record<string, HostMatrix[]> = {};
  for (const [module, { a, b }] of deltas) {
    host[module] = [];
    for (const tensor of [a, b]) {
      const values = await tensor.device.download(tensor) as HostMatrix["values"];
      host[module].push({ shape: tensor.shape, values });
    }
  }
  return host;
}

const METHODS: readonly [name: string, method: Method, passes: number][] = [
  ["iteris() in a sweep", { iteris: { alpha: 1e-3 } }, 1],
  ["iteris() by jacobi", { iteris: { schedule: "jacobi", iterations: 3, tolerance: 1e-12 } }, 3],
  ["iterisPlus() with alpha: auto and a lower rank", { plus: { alpha: "auto", rank: 2 } }, 1],
];

for (const [name, method, passes] of METHODS) {
  testOnEachDevice(`${name} gives the same bits when it dies after any stage and goes on`, async (device) => {
    const whole = await mergeToy(toy, tasks, method, { device });
    const expected = await hostDeltas(whole);
    // Every stage where that is quick.
    const step = device.info.backend === "cpu" ? 1 : passes + 1;
    for (let diesAt = 1; diesAt <= passes * STAGES; diesAt += step) {
      const { stages } = new MemoryJournal();
      const dying = new MemoryJournal(stages, diesAt);
      await assertRejects(() => mergeToy(toy, tasks, method, { device, journal: dying }), PowerCut);
      const going = new MemoryJournal(stages);
      const resumed = await mergeToy(toy, tasks, method, { device, journal: going });
      assertEquals(going.recorded.length, passes * STAGES - diesAt, "only what was missing is solved");
      assertEquals(await hostDeltas(resumed), expected);
      assertEquals(resumed.report, whole.report);
    }
  });
}

Deno.test("iteris() sends no sample through the model when the journal knows all stages", async () => {
  const journal = new MemoryJournal();
  const whole = await mergeToy(toy, tasks, { iteris: {} }, { journal });
  const { begin } = ToyModel.prototype;
  ToyModel.prototype.begin = () => {
    throw new Error("the model was run");
  };
  try {
    const replayed = await mergeToy(toy, tasks, { iteris: {} }, { journal });
    assertEquals(await hostDeltas(replayed), await hostDeltas(whole));
    assertEquals(replayed.report, whole.report);
  } finally {
    ToyModel.prototype.begin = begin;
  }
});

Deno.test("iteris() tells the same progress when stages are replayed", async () => {
  const journal = new MemoryJournal();
  const seen: (readonly unknown[])[] = [[], []];
  for (const list of seen) {
    await mergeToy(toy, tasks, { iteris: {} }, {
      journal,
      progress: (step) => (list as unknown[]).push(step),
    });
  }
  assertEquals(seen[0], seen[1]);
});
