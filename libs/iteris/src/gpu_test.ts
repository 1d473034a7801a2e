import { assertEquals, assertLess } from "@std/assert";
import { relativeError } from "@lora-loom/testing";
import { testOnGpu } from "./test_support/devices.ts";
import { denseResult, mergeToy, type Method } from "./test_support/merge_toy.ts";
import { denseDeltas, type Matrix, times, trace, transpose } from "./test_support/oracle.ts";
import { type HostTask, SMALL, ToyModel, toyTask, toyWeights, uploadTask } from "./test_support/toy_model.ts";

const toy = toyWeights({ ...SMALL, layers: 1, hidden: 24, inner: 20 }, 3);
const tasks = [
  toyTask(toy, { name: "first", rank: 2, samples: 20, seed: 1 }),
  toyTask(toy, { name: "second", rank: 4, samples: 25, seed: 2 }),
  toyTask(toy, { name: "third", rank: 3, samples: 15, seed: 3, without: ["layers.0.k"] }),
];

/** Two chunks a task. */
const CHUNKS = { tokensPerChunk: 80 };

/** The largest relative difference of a module's output on the calibration text. */
function outputDifference(
  actual: ReadonlyMap<string, Matrix>,
  expected: ReadonlyMap<string, Matrix>,
  texts: readonly HostTask[],
): number {
  let largest = 0;
  for (const { sequences } of texts) {
    const { inputs } = trace(toy, sequences, expected);
    for (const [module, x] of inputs) {
      const outputs = [actual, expected].map((deltas) => times(x, transpose(deltas.get(module)!)).flat());
      largest = Math.max(largest, relativeError(outputs[0]!, outputs[1]!));
    }
  }
  return largest;
}

const METHODS: readonly (readonly [string, Method])[] = [
  ["iteris() by sweep", { iteris: {} }],
  ["iteris() by jacobi", { iteris: { schedule: "jacobi", iterations: 2, rank: 5 } }],
  ["iteris() with alpha auto", { iteris: { alpha: "auto" } }],
  ["iterisPlus()", { plus: { tokenWeight: 0.3 } }],
];

for (const [name, method] of METHODS) {
  for (const [place, hostSolverLimit] of [["GPU", 0], ["CPU", 1024]] as const) {
    testOnGpu(
      `${name} on the GPU agrees with float64 when systems are solved on the ${place}`,
      async (device) => {
        const expected = await denseResult(await mergeToy(toy, tasks, method));
        const memory = { ...CHUNKS, hostSolverLimit };
        const merged = await mergeToy(toy, tasks, method, { device, memory });
        assertLess(outputDifference(await denseResult(merged), expected, tasks), 2e-5);
        const solver = place === "GPU" ? "gpu_refined" : "cpu_float64";
        for (const site of merged.report.sites) {
          assertEquals(site.solver, solver);
          assertLess(site.backwardError, place === "CPU" ? 1e-13 : 1e-7);
        }
      },
    );
  }
}

testOnGpu(
  "iteris() on the GPU sums precisely enough for a tiny alpha, and not in single precision",
  async (device) => {
    const alpha = 1e-9;
    const expected = await denseResult(await mergeToy(toy, tasks, { iteris: { alpha } }));
    const errorIn = async (precision: "auto" | "single") => {
      const merged = await mergeToy(toy, tasks, { iteris: { alpha, precision } }, { device, memory: CHUNKS });
      return outputDifference(await denseResult(merged), expected, tasks);
    };
    const [precise, single] = [await errorIn("auto"), await errorIn("single")];
    assertLess(precise, 1e-5);
    assertLess(2 * precise, single);
  },
);

for (const method of [{ iteris: {} }, { plus: {} }] satisfies Method[]) {
  const name = "plus" in method ? "iterisPlus()" : "iteris()";
  const memory = { ...CHUNKS, hostSolverLimit: 0 };

  testOnGpu(`${name} on the GPU returns the adapter when it is alone`, async (device) => {
    const merged = await mergeToy(toy, tasks.slice(0, 1), method, { device, memory });
    const difference = outputDifference(
      await denseResult(merged),
      denseDeltas(toy, tasks[0]!),
      tasks.slice(0, 1),
    );
    assertLess(difference, 1e-5);
  });

  testOnGpu(`${name} on the GPU leaves nothing but its result behind`, async (device) => {
    const start = device.memory.bytes;
    new ToyModel(device, toy);
    tasks.forEach((task) => uploadTask(device, toy, task));
    const inputs = device.memory.bytes - start;

    const merged = await mergeToy(toy, tasks, method, { device, memory });
    for (const { a, b } of merged.deltas.values()) {
      a.dispose();
      b.dispose();
    }
    assertEquals(device.memory.bytes, start + 2 * inputs);
  });
}
