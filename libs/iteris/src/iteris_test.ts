import { assert, assertEquals, assertLess, assertLessOrEqual } from "@std/assert";
import { CpuDevice, type Tensor } from "@lora-loom/tensor";
import { assertRelativelyClose } from "@lora-loom/testing";
import { iteris } from "./iteris.ts";
import { iterisPlus } from "./iteris_plus.ts";
import type { Delta } from "./base_model.ts";
import type { IterisOptions, IterisPlusOptions } from "./options.ts";
import type { Merged } from "./run.ts";
import {
  denseDeltas,
  fromFlat,
  jacobiOracle,
  type Matrix,
  sweepOracle,
  times,
} from "./test_support/oracle.ts";
import { type HostTask, SMALL, ToyModel, toyTask, toyWeights, uploadTask } from "./test_support/toy_model.ts";

const toy = toyWeights(SMALL, 1);
const tasks = [
  toyTask(toy, { name: "first", rank: 2, samples: 12, seed: 1 }),
  toyTask(toy, { name: "second", rank: 1, samples: 9, seed: 2 }),
  toyTask(toy, { name: "third", rank: 3, samples: 14, seed: 3, without: ["layers.0.k", "layers.1.o"] }),
];

async function matrixOf(tensor: Tensor): Promise<Matrix> {
  return fromFlat(await tensor.device.download(tensor), tensor.shape[0]!, tensor.shape[1]!);
}

async function denseOf({ a, b }: Delta): Promise<Matrix> {
  return times(await matrixOf(b), await matrixOf(a));
}

type Request = { readonly iteris: IterisOptions } | { readonly plus: IterisPlusOptions };

async function merge(hostTasks: readonly HostTask[], request: Request): Promise<Merged> {
  const device = new CpuDevice();
  const common = {
    device,
    model: new ToyModel(device, toy),
    tasks: hostTasks.map((task) => uploadTask(device, toy, task)),
    memory: { tokensPerChunk: 20 },
  };
  return "iteris" in request
    ? await iteris({ ...common, options: request.iteris })
    : await iterisPlus({ ...common, options: request.plus });
}

async function assertDeltas(
  merged: Merged,
  expected: ReadonlyMap<string, Matrix>,
  tolerance = 1e-9,
): Promise<void> {
  assertEquals([...merged.deltas.keys()].sort(), [...expected.keys()].sort());
  for (const [module, matrix] of expected) {
    assertRelativelyClose(
      (await denseOf(merged.deltas.get(module)!)).flat(),
      matrix.flat(),
      tolerance,
      module,
    );
  }
}

for (const adaptiveWeights of ["full", "delta", "none"] as const) {
  Deno.test(`iteris() sweeps to the dense solution when adaptiveWeights is ${adaptiveWeights}`, async () => {
    const merged = await merge(tasks, { iteris: { alpha: 1e-3, adaptiveWeights } });
    await assertDeltas(merged, sweepOracle(toy, tasks, { alpha: 1e-3, lambda: adaptiveWeights }));
  });
}

Deno.test("iteris() agrees with the dense solution in every iteration of jacobi", async () => {
  for (const iterations of [1, 2, 3]) {
    const merged = await merge(tasks, { iteris: { alpha: 1e-4, schedule: "jacobi", iterations } });
    await assertDeltas(merged, jacobiOracle(toy, tasks, { alpha: 1e-4, lambda: "full" }, iterations), 1e-8);
  }
});

for (const [drift, stream] of [[true, false], [false, true], [true, true]] as const) {
  Deno.test(`iterisPlus() solves the full-weight problem when drift is ${drift} and stream ${stream}`, async () => {
    const merged = await merge(tasks, { plus: { alpha: 1e-3, drift, stream, tokenWeight: 0.3, rank: 7 } });
    const options = { alpha: 1e-3, lambda: "none", drift, stream, tokenWeight: 0.3 } as const;
    await assertDeltas(merged, sweepOracle(toy, tasks, options), 1e-8);
  });
}
