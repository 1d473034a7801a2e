/**
 * Prints what merges of Llamas of 1B to 70B are predicted to need, in memory and in time:
 *
 *     deno run -A tests/bench/memory_needs.ts [--method iteris] [--rows 50] [--tokens 256] [--tasks 2] [--rank 8] [--device-gib 14]
 *         [--seconds-7b 100] [--read-gbs 2]
 *
 * Nothing is run: bfloat16 weights, streamed, on a GPU; where a model does not fit `--device-gib`, within the next limit that it fits. Times scale the operations that the sweep counts from what a merge at the 7B's
 * shapes took on the machine in question (`tests/bench/streaming.ts`), and add reading at so many GB/s.
 */
import { parseArgs } from "@std/cli/parse-args";
import { type BaseShapes, type MemoryNeeds, MergeError, planMemory, type Workload } from "@lora-loom/merge";
import { LLAMA_SHAPES, llamaModules, type LlamaShape } from "../tools/llama_shapes.ts";

const flags = parseArgs(Deno.args, {
  string: ["method", "rows", "tokens", "tasks", "rank", "device-gib", "seconds-7b", "read-gbs"],
  default: {
    method: "iteris",
    rows: "50",
    tokens: "256",
    tasks: "2",
    rank: "8",
    "device-gib": "14",
    "seconds-7b": "100",
    "read-gbs": "2",
  },
});
const [rank, tasks, deviceGib] = [flags.rank, flags.tasks, flags["device-gib"]].map(Number) as [
  number,
  number,
  number,
];
const longest = Number(flags.tokens);
const tokens = Number(flags.rows) * longest;
const corrects = flags.method === "iteris+";
const GIB = 2 ** 30;
const MACHINE = { freeHostBytes: Infinity, freeScratchBytes: Infinity };

const operationsAt7b = operations(workOf(LLAMA_SHAPES["7b"]));
console.log(
  `${flags.method}, ${tasks} adapters of rank ${rank}, ${flags.rows} rows of ${longest} tokens each, ` +
    `${flags["seconds-7b"]} s at 7B\n`,
);
console.log("| | device_gib | stored | device | host | temporary files | read | time |");
console.log("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
for (const name of ["1b", "3b", "7b", "70b"] as const) console.log(row(name, workOf(LLAMA_SHAPES[name])));

/** Within the limit that was asked for, or the next that does. */
function row(name: string, work: Workload): string {
  const { limit, needs } = plannedWithin([deviceGib, 24, 40, 80, 160], work);
  const computing = Number(flags["seconds-7b"]) * operations(work) / operationsAt7b;
  const seconds = computing + needs.read_bytes / (Number(flags["read-gbs"]) * 1e9);
  const figures = [
    work.base.storedBytes,
    needs.device_bytes,
    needs.host_bytes,
    needs.scratch_bytes,
    needs.read_bytes,
  ];
  return `| ${name.toUpperCase()} | ${limit} | ${figures.map(gib).join(" | ")} | ${seconds.toFixed(0)} s |`;
}

function plannedWithin(limits: readonly number[], work: Workload): { limit: number; needs: MemoryNeeds } {
  const [limit, ...higher] = limits;
  const choice = { weights: "streamed", deviceGib: limit! } as const;
  try {
    const { needs } = planMemory(work, choice, MACHINE, { streamable: true, where: "" });
    return { limit: limit!, needs };
  } catch (error) {
    if (!(error instanceof MergeError) || higher.length === 0) throw error;
    return plannedWithin(higher, work);
  }
}

function workOf(llama: LlamaShape): Workload {
  const base = shapesOf(llama);
  const sites = base.stages.flatMap(({ sites }) => sites);
  const width = sites.reduce((sum, { inFeatures, outFeatures }) => sum + inFeatures + outFeatures, 0);
  return {
    base,
    adapted: new Set(sites.map(({ module }) => module)),
    adapterElements: tasks * rank * width,
    mergedElements: tasks * rank * width,
    tasks: Array.from({ length: tasks }, () => ({ tokens, longest })),
    answers: [],
    corrects,
    holdsOut: false,
    passes: 1,
    maxNewTokens: 0,
    residency: "streamed",
    device: { elementBytes: 4, onHost: false, packs: true, hostSolverLimit: 512 },
  };
}

/** Every layer's seven modules as the four stages in which they run. */
function shapesOf(llama: LlamaShape): BaseShapes {
  const modules = llamaModules(llama).map(({ name, ...sizes }) => ({
    module: name,
    ...sizes,
    writesStream: name.endsWith("o_proj") || name.endsWith("down_proj"),
  }));
  const stages = Array.from({ length: llama.layers }, (_, layer) => {
    const [q, k, v, o, gate, up, down] = modules.slice(7 * layer, 7 * layer + 7);
    return [[q!, k!, v!], [o!], [gate!, up!], [down!]].map((sites) => ({ sites }));
  }).flat();
  const inLayers = modules.reduce((sum, { inFeatures, outFeatures }) => sum + inFeatures * outFeatures, 0);
  const parameters = inLayers + (llama.tied ? 1 : 2) * llama.vocabulary * llama.hidden;
  return {
    stages,
    layers: llama.layers,
    hiddenSize: llama.hidden,
    vocabularySize: llama.vocabulary,
    keyValueWidth: 2 * llama.keyValueHeads * llama.headDim,
    parameters,
    storedBytes: 2 * parameters,
  };
}

/** Multiplications of the large products: two forward passes and one for λ, sums over tokens, factorisations, dense solutions. */
function operations({ base, tasks, corrects }: Workload): number {
  const rows = tasks.reduce((sum, task) => sum + task.tokens, 0);
  return base.stages.reduce((sum, { sites }) => {
    const inFeatures = sites[0]!.inFeatures;
    const outputs = sites.reduce((all, { outFeatures }) => all + outFeatures, 0);
    const forward = (corrects ? 4 : 3) * rows * inFeatures * outputs;
    const sums = 1.5 * rows * inFeatures ** 2;
    const solution = inFeatures ** 3 / 6 + (corrects ? 4 * outputs * inFeatures ** 2 : 0);
    return sum + forward + sums + solution;
  }, 0);
}

function gib(bytes: number): string {
  return `${(bytes / GIB).toFixed(1)} GiB`;
}
