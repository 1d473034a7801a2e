import { assertLess, assertLessOrEqual } from "@std/assert";
import { iteris, type IterisOptions, iterisPlus, type Task } from "@lora-loom/iteris";
import { predictNeeds, type Workload } from "@lora-loom/merge";
import { openModel, readModelShapes } from "@lora-loom/model";
import { type Device, openDevice } from "@lora-loom/tensor";
import { gaussians } from "@lora-loom/testing";
import { withFolder } from "../support/paths.ts";
import { type LinearShape, llamaModules, type LlamaShape } from "../tools/llama_shapes.ts";
import { makeBase } from "../tools/make_base.ts";

const LLAMA: LlamaShape = {
  hidden: 128,
  mlp: 352,
  layers: 1,
  queryHeads: 2,
  keyValueHeads: 2,
  headDim: 64,
  vocabulary: 256,
  tied: false,
};
const RANK = 4;
const LENGTH = 64;
const SAMPLES = 6;
const BUDGETS = { tokensPerChunk: 128, deviceBytes: 2 ** 20, hostBytes: 2 ** 19, keyValueBytes: 2 ** 20 };

for (const [name, solve] of [["iteris", iteris], ["iteris+", iterisPlus]] as const) {
  for (const alpha of [1e-4, "auto"] as const) {
    Deno.test(`predictNeeds() is above what ${name} with alpha ${alpha} takes on a GPU, and not far`, async () => {
      await withFolder(async (folder) => {
        await makeBase(folder, LLAMA);
        await using device = await openDevice({ device: "software" });
        using model = await openModel(device, folder, { residency: "streamed" });
        const modules = llamaModules(LLAMA);
        const options: IterisOptions = { alpha };
        // Everything is solved on the GPU, as large modules are.
        const memory = { ...BUDGETS, hostSolverLimit: 0 };
        const tasks = [1, 2].map((seed) => randomTask(device, modules, seed));
        await solve({ device, model, tasks, options, memory });
        const work = await workOf(folder, modules, {
          corrects: name === "iteris+",
          holdsOut: alpha === "auto",
        });
        const predicted = predictNeeds(work, BUDGETS).device_bytes;
        assertLessOrEqual(device.memory.peakBytes, predicted);
        assertLess(predicted, 1.6 * device.memory.peakBytes);
      });
    });
  }
}

function randomTask(device: Device, modules: readonly LinearShape[], seed: number): Task {
  const random = (rows: number, columns: number, factor: number, at: number) =>
    device.upload(gaussians(rows * columns, at).map((x) => factor * x), [rows, columns]);
  return {
    name: `task ${seed}`,
    deltas: new Map(modules.map(({ name, inFeatures, outFeatures }, index) => [name, {
      a: random(RANK, inFeatures, 1 / Math.sqrt(inFeatures), 100 * seed + index),
      b: random(outFeatures, RANK, 0.02, 1000 * seed + index),
    }])),
    sequences: Array.from({ length: SAMPLES }, (_, sample) => ({
      tokens: Uint32Array.from({ length: LENGTH }, (_, t) => (t * t + 7 * sample + seed) % LLAMA.vocabulary),
      answerStart: LENGTH - 4,
    })),
  };
}

async function workOf(
  folder: string,
  modules: readonly LinearShape[],
  method: Pick<Workload, "corrects" | "holdsOut">,
): Promise<Workload> {
  const width = modules.reduce((sum, { inFeatures, outFeatures }) => sum + inFeatures + outFeatures, 0);
  const tokens = SAMPLES * LENGTH;
  return {
    base: await readModelShapes(folder),
    adapted: new Set(modules.map(({ name }) => name)),
    adapterElements: 2 * RANK * width,
    mergedElements: 2 * RANK * width,
    tasks: [{ tokens, longest: LENGTH }, { tokens, longest: LENGTH }],
    answers: [],
    ...method,
    passes: 1,
    maxNewTokens: 0,
    residency: "streamed",
    device: { elementBytes: 4, onHost: false, packs: false, hostSolverLimit: 0 },
  };
}
