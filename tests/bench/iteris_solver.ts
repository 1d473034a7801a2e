/**
 * Times the parts of one IterIS site on the GPU: a model of one layer, calibrated with random rows, merged by both methods.
 *
 *     deno run -A tests/bench/iteris_solver.ts [--device auto] [--sizes 1024,4096] [--rows 4096] [--tasks 4] [--rank 16]
 *
 * Prints a line per size and method: seconds of the merge (second of two runs), backward error, condition, and what truncation lost.
 */
import { parseArgs } from "@std/cli/parse-args";
import { type Activations, type BaseModel, iteris, iterisPlus, type Stage } from "@lora-loom/iteris";
import { type Device, openDevice, type Tensor } from "@lora-loom/tensor";
import { seeded } from "@lora-loom/testing";

const flags = parseArgs(Deno.args, {
  string: ["device", "sizes", "rows", "tasks", "rank", "limit"],
  default: { device: "auto", sizes: "1024,4096", rows: "4096", tasks: "4", rank: "16", limit: "0" },
});
const [rows, tasks, rank] = [Number(flags.rows), Number(flags.tasks), Number(flags.rank)];
/** Tokens of one sequence. */
const LENGTH = 64;

await using device = await openDevice({ device: flags.device as "auto" });
console.error(device.info.name);

for (const size of flags.sizes.split(",").map(Number)) {
  const model = oneLayer(device, size);
  const request = {
    device,
    model,
    tasks: Array.from({ length: tasks }, (_, i) => makeTask(device, size, i)),
    memory: { hostSolverLimit: Number(flags.limit), tokensPerChunk: 4096 },
  };
  for (
    const [method, merge] of [["iteris", () => iteris(request)], [
      "iteris+",
      () => iterisPlus(request),
    ]] as const
  ) {
    await merge();
    const started = performance.now();
    const { report } = await merge();
    const [site] = report.sites;
    console.log(JSON.stringify({
      size,
      method,
      seconds: Math.round(performance.now() - started) / 1000,
      solver: site!.solver,
      backwardError: site!.backwardError.toExponential(1),
      iterations: site!.iterations,
      condition: site!.condition.toExponential(1),
      loss: site!.rank.loss.toPrecision(3),
      plainLoss: site!.rank.plainLoss.toPrecision(3),
      peakDeviceMegabytes: Math.round(device.memory.peakBytes / 2 ** 20),
    }));
  }
}

/** A model whose one layer reads rows with a few strong directions, drawn anew from the tokens. */
function oneLayer(on: Device, size: number): BaseModel {
  const stage: Stage = {
    index: 0,
    name: "layer",
    sites: [{ module: "linear", inFeatures: size, outFeatures: size, writesStream: true }],
  };
  const weight = on.upload(uniform(size * size, 1, 1 / Math.sqrt(size)), [size, size]);
  const state = (lengths: readonly number[], input: Tensor): Activations => ({
    lengths,
    input,
    stream: input,
    tensors: new Map([["input", input]]),
    [Symbol.dispose]: () => input.dispose(),
  });
  return {
    stages: [stage],
    begin(sequences) {
      const tokens = sequences.flatMap((sequence) => [...sequence]);
      const values = new Float32Array(tokens.length * size);
      tokens.forEach((token, row) => {
        const random = seeded(token);
        for (let j = 0; j < size; j++) values[row * size + j] = (2 * random() - 1) / (1 + j / 16) + 0.3;
      });
      return state(sequences.map(({ length }) => length), on.upload(values, [tokens.length, size]));
    },
    advance: () => {
      throw new Error("there is no next stage");
    },
    restore: (_stage, lengths, tensors) => state(lengths, tensors.get("input")!),
    weight: () => weight,
  };
}

function makeTask(on: Device, size: number, index: number) {
  const a = on.upload(uniform(rank * size, 10 + index, 1 / Math.sqrt(size)), [rank, size]);
  const b = on.upload(uniform(size * rank, 20 + index, 0.1), [size, rank]);
  const sequences = Array.from({ length: rows / LENGTH }, (_, i) => ({
    tokens: Uint32Array.from({ length: LENGTH }, (_, t) => index * rows + i * LENGTH + t),
    answerStart: LENGTH - 8,
  }));
  return { name: `task ${index}`, deltas: new Map([["linear", { a, b }]]), sequences };
}

function uniform(count: number, seed: number, factor: number): Float32Array<ArrayBuffer> {
  const random = seeded(seed);
  return Float32Array.from({ length: count }, () => factor * (2 * random() - 1));
}
