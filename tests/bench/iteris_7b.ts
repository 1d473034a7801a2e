/**
 * Times IterIS's own arithmetic at Llama-2-7B's shapes: Gram matrices, factorisations, solves and truncation of every module, on random inputs.
 *
 *     deno run -A tests/bench/iteris_7b.ts [--device auto] [--layers 8] [--rows 25600] [--tasks 2] [--rank 8] [--scale 1]
 *       [--methods iteris,iteris+,iteris+metric] [--kernels] [--json FILE]
 *
 * `iteris+metric` is a sweep of `iteris+` with output metrics, in blocks of 256 outputs; what it takes to measure them is left out. So
 * are the forward passes: the inputs of a stage are rows of one random matrix, the experts' a little off the merged model's.
 * `--layers 32` is the whole model; fewer are measured and scaled up. `--kernels` prints what the kernels cost. On software
 * drivers the default is one layer at a sixteenth of the widths, with 2048 rows.
 */
import { parseArgs } from "@std/cli/parse-args";
import {
  type Activations,
  type BaseModel,
  iteris,
  iterisPlus,
  type OutputMetrics,
  type Stage,
} from "@lora-loom/iteris";
import {
  add,
  type Device,
  gramBlocks,
  kernelTimes,
  openDevice,
  sliceRows,
  type Tensor,
} from "@lora-loom/tensor";
import { uniforms } from "@lora-loom/testing";

const flags = parseArgs(Deno.args, {
  string: ["device", "layers", "rows", "tasks", "rank", "scale", "methods", "json"],
  boolean: ["kernels"],
  default: { device: "auto", tasks: "2", rank: "8", methods: "iteris,iteris+" },
});
await using device = await openDevice({ device: flags.device as "auto", timeKernels: flags.kernels });
const hardware = device.info.class === "tensor" || device.info.class === "gpu";
const [layers, scale, tasks, rank, rows] = [
  flags.layers ?? (hardware ? 8 : 1),
  flags.scale ?? (hardware ? 1 : 16),
  flags.tasks,
  flags.rank,
  flags.rows ?? (hardware ? 25600 : 2048),
].map(Number) as [number, number, number, number, number];
/** Rows of all tasks together, in sequences of this length. */
const LENGTH = 256;
const rowsEach = Math.floor(rows / tasks / LENGTH) * LENGTH;
const [hidden, wide] = [4096 / scale, 11008 / scale];

console.log(
  `${device.info.name}: ${layers} layers of 7 modules, ${tasks} tasks of ${rowsEach} rows, rank ${rank}`,
);

const STAGES:
  readonly (readonly [name: string, inFeatures: number, modules: readonly (readonly [string, number])[]])[] =
    [
      ["qkv", hidden, [["q_proj", hidden], ["k_proj", hidden], ["v_proj", hidden]]],
      ["o", hidden, [["o_proj", hidden]]],
      ["gate_up", hidden, [["gate_proj", wide], ["up_proj", wide]]],
      ["down", wide, [["down_proj", hidden]]],
    ];
const model = randomModel(device);
const request = {
  device,
  model,
  tasks: Array.from({ length: tasks }, (_, index) => makeTask(device, index)),
  memory: { tokensPerChunk: 8192, deviceBytes: 8 * 2 ** 30 },
};
// Once for the kernels and the clock.
await iteris({
  ...request,
  tasks: request.tasks.map((task) => ({ ...task, sequences: task.sequences.slice(0, 4) })),
});
const figures = [];
const METHODS = {
  "iteris": () => iteris(request),
  "iteris+": () => iterisPlus(request),
  "iteris+metric": () => iterisPlus({ ...request, metrics: randomMetrics(device) }),
};
for (const [name, run] of Object.entries(METHODS)) {
  if (!flags.methods.split(",").includes(name)) continue;
  const start = performance.now();
  const { report, deltas } = await run();
  const seconds = (performance.now() - start) / 1000;
  for (const { a, b } of deltas.values()) [a, b].forEach((tensor) => tensor.dispose());
  const worst = Math.max(...report.sites.map(({ backwardError }) => backwardError));
  console.log(
    `${name}: ${seconds.toFixed(2)} s, ${
      (seconds * 32 / layers).toFixed(1)
    } s for 32 layers; largest backward error ${worst.toExponential(1)}, ${
      (device.memory.peakBytes / 2 ** 30).toFixed(2)
    } GiB of device memory`,
  );
  figures.push({
    method: name,
    layers,
    scale,
    rows: rowsEach,
    seconds,
    secondsOf32Layers: seconds * 32 / layers,
    backwardError: worst,
    deviceBytes: device.memory.peakBytes,
  });
  if (!flags.kernels) continue;
  for (const { kernel, dispatches, seconds } of (await kernelTimes(device)).slice(0, 16)) {
    console.log(`  ${kernel.padEnd(52)} ${String(dispatches).padStart(7)} ${seconds.toFixed(3)} s`);
  }
}

if (flags.json) {
  await Deno.writeTextFile(flags.json, JSON.stringify({ device: device.info, iteris: figures }, null, 2));
}

function random(on: Device, rows: number, columns: number, seed: number, factor: number): Tensor {
  const values = uniforms(rows * columns, seed);
  for (let i = 0; i < values.length; i++) values[i]! *= factor;
  return on.upload(values, [rows, columns]);
}

/** A chain of stages whose inputs do not depend on what came before. */
function randomModel(on: Device): BaseModel {
  const stages = Array.from(
    { length: layers },
    (_, layer) =>
      STAGES.map(([name, inFeatures, modules], position): Stage => ({
        index: 4 * layer + position,
        name: `layers.${layer}.${name}`,
        sites: modules.map(([module, outFeatures]) => ({
          module: `layers.${layer}.${module}`,
          inFeatures,
          outFeatures,
          writesStream: name === "o" || name === "down",
        })),
      })),
  ).flat();
  const inputs = new Map([hidden, wide].map((width, i) => [width, random(on, rowsEach, width, 1 + i, 1)]));
  const weights = new Map(
    STAGES.flatMap(([, inFeatures, modules]) =>
      modules.map(([module, out]) =>
        [module, random(on, out, inFeatures, 7, 1 / Math.sqrt(inFeatures))] as const
      )
    ),
  );
  /** Rows from `first` on. The place of a batch travels as the shape of an empty tensor. */
  const at = (
    stage: Stage | undefined,
    first: number,
    lengths: readonly number[],
    merged: boolean,
  ): Activations => {
    const rows = lengths.reduce((sum, length) => sum + length, 0);
    const part = (width: number) => sliceRows(inputs.get(width)!, first, first + rows);
    const input = part(stage?.sites[0]?.inFeatures ?? hidden);
    if (merged) add(input, input, { beta: 0.01, into: input });
    return wrapped(
      lengths,
      new Map([["input", input], ["stream", part(hidden)], ["place", on.zeros([first, 0])]]),
    );
  };
  return {
    stages,
    begin: (sequences) => at(stages[0], sequences[0]![0]!, sequences.map(({ length }) => length), false),
    advance(stage, { tensors, lengths }, deltas) {
      // The merged deltas have a higher rank than the experts'.
      const merged = [...deltas.values()].some(({ a }) => a.shape[0]! > rank);
      return at(stages[stage.index + 1], tensors.get("place")!.shape[0]!, lengths, merged);
    },
    restore: (_stage, lengths, tensors) => wrapped(lengths, tensors),
    weight: (module) => weights.get(module.split(".").at(-1)!)!,
  };
}

/** Output metrics of random gradients, a block for every 256 outputs. */
function randomMetrics(on: Device): OutputMetrics {
  const size = 256 / scale;
  return {
    blocks(task, _module, outputs) {
      using gradients = random(on, 2 * size, outputs, 1000 * task, 1);
      return Promise.resolve(gramBlocks(gradients, { size }));
    },
  };
}

function wrapped(lengths: readonly number[], tensors: ReadonlyMap<string, Tensor>): Activations {
  return {
    lengths,
    tensors,
    input: tensors.get("input")!,
    stream: tensors.get("stream")!,
    [Symbol.dispose]() {
      for (const tensor of tensors.values()) tensor.dispose();
    },
  };
}

function makeTask(on: Device, index: number) {
  const deltas = new Map(
    model.stages.flatMap(({ sites }) =>
      sites.map(({ module, inFeatures, outFeatures }, i) =>
        [module, {
          a: random(on, rank, inFeatures, 10 + 100 * index + i, 1 / Math.sqrt(inFeatures)),
          b: random(on, outFeatures, rank, 20 + 100 * index + i, 0.1),
        }] as const
      )
    ),
  );
  const sequences = Array.from({ length: rowsEach / LENGTH }, (_, i) => ({
    tokens: Uint32Array.from({ length: LENGTH }, (_, t) => i * LENGTH + t),
    answerStart: LENGTH - 8,
  }));
  return { name: `task ${index}`, deltas, sequences };
}
