import type { MemoryNeeds } from "./needs.ts";
import type { Budgets, Workload } from "./workload.ts";

/** Buffers come in size classes of which at most an eighth stays unused; half of that is usual. */
const ROUNDING = 1 + 1 / 16;
/** What products on matrix units pack of two operands at a time. */
const PACKING_BYTES = 2 * 256 * 2 ** 20;
/** The program, its libraries, staging buffers and the GPU's driver. */
const PROGRAM_BYTES = 768 * 2 ** 20;
/** What a device in the host's memory takes beside its tensors: buffers that are kept for reuse, and compiled kernels. */
const BESIDE_TENSORS = 768 * 2 ** 20;
/** Rows of a stage's weights that are read at once, of embeddings or the head. */
const READ_AT_ONCE = 256 * 2 ** 20;
/** Vectors as long as a right-hand side that refining a solution takes. */
const REFINEMENT_VECTORS = 10;

type Stage = Workload["base"]["stages"][number];

/**
 * What a calibrated merge needs: the largest of its moments on the device, and what waits elsewhere. Sizes follow the code that
 * computes: see the terms of each function.
 */
export function predictNeeds(work: Workload, budgets: Budgets): MemoryNeeds {
  const kept = keptParts(work);
  const phases = [
    answering(work, budgets),
    ...work.base.stages.map((stage) => sweeping(work, budgets, stage)),
  ];
  const states = Math.max(...work.base.stages.map((stage) => stateBytes(work, stage)));
  const onDevice = Math.min(states, budgets.deviceBytes);
  const onHost = Math.min(states - onDevice, budgets.hostBytes);
  const peak = phases.reduce((most, phase) => sumOf(phase.device) > sumOf(most.device) ? phase : most);
  const device_parts = rounded({ ...kept, ...peak.device });
  const device_bytes = sumOf(device_parts);
  const host = PROGRAM_BYTES + readBytes(work) + onHost + Math.max(...phases.map(({ host }) => host));
  return {
    device_bytes,
    host_bytes: Math.ceil(host + (work.device.onHost ? device_bytes + BESIDE_TENSORS : 0)),
    scratch_bytes: states - onDevice - onHost,
    read_bytes: readVolume(work, budgets),
    device_parts,
  };
}

/** A moment of the merge: bytes by what they are for. */
interface Phase {
  readonly device: Readonly<Record<string, number>>;
  readonly host: number;
}

/** What is there all the time: resident weights; the adapters, the same stacked, and what is merged. */
function keptParts({ base, residency, adapterElements, mergedElements, device }: Workload) {
  return {
    ...(residency === "resident" ? { "resident weights": device.elementBytes * base.parameters } : {}),
    adapters: device.elementBytes * (2 * adapterElements + mergedElements),
  };
}

/** One stage of a pass over the samples, at the larger of: a chunk on its way with the sums, the solution. */
function sweeping(work: Workload, budgets: Budgets, stage: Stage): Phase {
  const { elementBytes, hostSolverLimit } = work.device;
  const inFeatures = stage.sites[0]!.inFeatures;
  const solvesOnHost = inFeatures <= hostSolverLimit;
  const sites = stage.sites.filter(({ module }) => work.adapted.has(module));
  // λ is measured with the adapters' weights, W0 + W_i, of one task at a time; where solutions are dense there is none.
  const measured = work.corrects ? 0 : sum(sites.map((site) => site.inFeatures * site.outFeatures));
  const sums = sites.length > 0 ? sumElements(work, stage) : 0;
  const gathering = chunkElements(work, budgets, stage) + sums + measured;
  const solving = sites.length > 0 ? solvingElements(work, stage, solvesOnHost) : 0;
  const busy = solvesOnHost ? gathering : Math.max(gathering, solving);
  return {
    device: {
      ...(work.residency === "streamed" ? { "weights of a stage": stageWeightBytes(work, stage) } : {}),
      "states of samples": Math.min(stateBytes(work, stage), budgets.deviceBytes),
      "sums and solution": elementBytes * busy + (work.device.packs ? PACKING_BYTES : 0),
    },
    host: solvesOnHost ? 8 * solving : 0,
  };
}

/** Matrices of a stage, widened where products do not read them as they are stored, and the largest of them as it is stored. */
function stageWeightBytes({ base, device }: Workload, { sites }: Stage): number {
  const elements = sites.map(({ inFeatures, outFeatures }) => inFeatures * outFeatures);
  const heldElementBytes = device.packs ? storedElementBytes(base) : device.elementBytes;
  return heldElementBytes * sum(elements) + storedElementBytes(base) * Math.max(...elements);
}

/** Input and stream of every token, in the experts' model and in the merged one. */
function stateBytes({ tasks, base, device }: Workload, stage: Stage): number {
  const rows = sum(tasks.map(({ tokens }) => tokens));
  return 2 * device.elementBytes * rows * (stage.sites[0]!.inFeatures + base.hiddenSize);
}

/** A chunk's states, both streams; differences and weighted copies of its inputs; three tensors of all outputs. */
function chunkElements({ tasks, base }: Workload, { tokensPerChunk }: Budgets, { sites }: Stage): number {
  const rows = Math.max(tokensPerChunk, ...tasks.map(({ longest }) => longest));
  const inFeatures = sites[0]!.inFeatures;
  return rows * (4 * inFeatures + 2 * base.hiddenSize + 3 * sum(sites.map(({ outFeatures }) => outFeatures)));
}

/** S_i, C_i − S_i and, where the stage writes the stream and that is corrected, the stream's sum, for every task. */
function momentElements({ tasks, base, corrects, holdsOut }: Workload, { sites }: Stage): number {
  const inFeatures = sites[0]!.inFeatures;
  const stream = corrects && sites.some(({ writesStream }) => writesStream)
    ? base.hiddenSize * inFeatures
    : 0;
  return (holdsOut ? 3 : 1) * tasks.length * (2 * inFeatures ** 2 + stream) + inFeatures ** 2;
}

/** The running sums that become the moments. */
function sumElements(work: Workload, stage: Stage): number {
  const inFeatures = stage.sites[0]!.inFeatures;
  const one = (momentElements({ ...work, holdsOut: false }, stage)) - inFeatures ** 2;
  return (work.holdsOut ? 2 : 1) * one;
}

/**
 * The moments; of each system that is solved at a time, G, its scaled form, the factor and its inverse, and what making that takes;
 * right-hand sides, and what refining takes.
 */
function solvingElements(work: Workload, stage: Stage, onHost: boolean): number {
  const inFeatures = stage.sites[0]!.inFeatures;
  const sites = stage.sites.filter(({ module }) => work.adapted.has(module));
  // A few dozen rows at most where only the stacked factors' rows are solved for.
  const rowsOf = ({ outFeatures }: Stage["sites"][number]) => work.corrects ? outFeatures : 0;
  const rightHandSides = 2 * sum(sites.map(rowsOf)) * inFeatures;
  const refining = REFINEMENT_VECTORS * Math.max(...sites.map(rowsOf)) * inFeatures;
  const systems = onHost || work.corrects || work.holdsOut ? 1 : sites.length;
  return momentElements(work, stage) + 5 * systems * inFeatures ** 2 + rightHandSides + refining;
}

/** Decoding of answers: weights with the deltas folded in, keys and values, a layer's activations and the head. */
function answering(work: Workload, budgets: Budgets): Phase {
  const { base, answers, residency, device } = work;
  if (answers.length === 0) return { device: {}, host: 0 };
  const sites = base.stages.flatMap(({ sites }) => sites);
  const elementsOf = (some: typeof sites) =>
    sum(some.map(({ inFeatures, outFeatures }) => inFeatures * outFeatures));
  const folded = elementsOf(sites.filter(({ module }) => work.adapted.has(module)));
  const perToken = keyValueBytesOf(work);
  const all = Math.max(...answers.map(({ tokens }) => tokens));
  const tokens = Math.min(all, Math.ceil(budgets.keyValueBytes / perToken));
  const prompts = Math.max(...answers.map((call) => call.prompts));
  const widest = Math.max(
    ...base.stages.map(({ sites }) => sum(sites.map(({ outFeatures }) => outFeatures))),
  );
  const isStreamed = residency === "streamed";
  const weights = isStreamed ? (elementsOf(sites) + folded) / base.layers : folded;
  const head = isStreamed ? base.vocabularySize * base.hiddenSize : 0;
  return {
    device: {
      "weights that answer": device.elementBytes * weights,
      "keys and values": perToken * tokens,
      activations: device.elementBytes * tokens * (3 * base.hiddenSize + 2 * widest),
      logits: device.elementBytes * (head + prompts * base.vocabularySize),
    },
    host: 0,
  };
}

/** Bytes of one stage and of the next, as they are stored, or of what is read of embeddings and head at once. */
function readBytes({ base, residency }: Workload): number {
  const vocabulary = storedElementBytes(base) * base.vocabularySize * base.hiddenSize;
  const run = Math.min(vocabulary, READ_AT_ONCE);
  const stored = base.stages.map(({ sites }) =>
    storedElementBytes(base) * sum(sites.map(({ inFeatures, outFeatures }) => inFeatures * outFeatures))
  );
  const pairs = stored.map((bytes, index) => bytes + (stored[index + 1] ?? 0));
  return residency === "streamed" ? Math.max(run, ...pairs) : run;
}

/** Once a pass and once a token of each group of answers where weights are streamed; else once. */
function readVolume(work: Workload, budgets: Budgets): number {
  const { base, answers, residency, passes, maxNewTokens } = work;
  if (residency === "resident") return base.storedBytes;
  const groups = answers.map(({ tokens, times }) =>
    times * Math.ceil(keyValueBytesOf(work) * tokens / budgets.keyValueBytes)
  );
  return base.storedBytes * (passes + maxNewTokens * sum(groups));
}

/** Of one token in all layers. */
function keyValueBytesOf({ base, device }: Workload): number {
  return device.elementBytes * base.layers * base.keyValueWidth;
}

function storedElementBytes({ storedBytes, parameters }: Workload["base"]): number {
  return storedBytes / parameters;
}

function rounded(parts: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(
    Object.entries(parts).map(([what, bytes]) => [what, Math.ceil(ROUNDING * bytes)]),
  );
}

function sumOf(parts: Readonly<Record<string, number>>): number {
  return sum(Object.values(parts));
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
