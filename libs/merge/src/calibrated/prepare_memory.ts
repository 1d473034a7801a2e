import { defaultHostSolverLimit } from "@lora-loom/iteris";
import { chooseResidency, openTokenizer, readModelShapes, type Residency } from "@lora-loom/model";
import { requireResidentWeights } from "../memory/gradients.ts";
import { deviceTraits, thisMachine } from "../memory/machine.ts";
import { type MemoryPlan, planMemory } from "../memory/plan_memory.ts";
import type { AnsweredPrompts, TaskTokens, Workload } from "../memory/workload.ts";
import type { ModelJob, Parameters } from "../methods/method.ts";
import { answerBatch } from "./answers.ts";
import { type Candidate, candidates } from "./candidates.ts";
import type { CalibrationSplit } from "./rows.ts";

/** How often each prompt that is kept out is answered: by its adapter, and by the merge, the sum and the mean of all. */
const BASELINES = 3;

/**
 * Says what the merge will need and lays out its memory, from headers and texts alone.
 *
 * @throws {MergeError} `not_enough_device_memory`, `not_enough_host_memory`, `not_enough_scratch`, `weights_streamed`; as
 *   {@linkcode readModelShapes} does
 */
export async function prepareMemory(job: ModelJob, splits: readonly CalibrationSplit[]): Promise<MemoryPlan> {
  const { device, baseModel, memory } = job;
  const base = await readModelShapes(baseModel!);
  const auto = chooseResidency("auto", device, base.parameters);
  const { metric = "none" } = job.parameters;
  const needsGradients = metric !== "none";
  if (needsGradients) requireResidentWeights(`metric: ${metric}`, device, base, memory, baseModel!);
  const residency = memory.weights === "auto" ? auto : memory.weights;
  const work: Workload = {
    base,
    adapted: new Set(job.plan.modules.map(({ name }) => name)),
    ...factorElements(job),
    ...await tokensOf(job, splits, residency),
    ...schedule(job.parameters),
    maxNewTokens: job.parameters.max_new_tokens as number,
    residency,
    device: deviceTraits(device, defaultHostSolverLimit(device)),
  };
  const streamable = base.streamable && !needsGradients;
  const plan = planMemory(work, memory, thisMachine(), { streamable, where: baseModel! });
  job.announce(plan.needs, plan.residency);
  return plan;
}

function factorElements({ plan }: ModelJob): Pick<Workload, "adapterElements" | "mergedElements"> {
  const elements = (rankOf: (module: (typeof plan.modules)[number]) => number) =>
    plan.modules.reduce((sum, module) => sum + rankOf(module) * (module.inFeatures + module.outFeatures), 0);
  return {
    adapterElements: elements(({ pooledRank }) => pooledRank),
    mergedElements: elements(({ rank }) => rank),
  };
}

/** What the method's parameters say of the sweeps. */
function schedule(parameters: Parameters): Pick<Workload, "corrects" | "holdsOut" | "passes"> {
  const all = candidates(parameters);
  const sweeps = parameters.schedule === "jacobi" ? parameters.iterations as number : 1;
  const sweepsOf = ({ metric }: Candidate) =>
    metric === "output" ? parameters.metric_sweeps as number : sweeps;
  return {
    corrects: parameters.drift === true || parameters.stream === true,
    holdsOut: all.some(({ alpha }) => alpha === "auto"),
    passes: sum(all.map(sweepsOf)),
  };
}

async function tokensOf(
  { baseModel, parameters }: ModelJob,
  splits: readonly CalibrationSplit[],
  residency: Residency,
): Promise<Pick<Workload, "tasks" | "answers">> {
  const tokenizer = await openTokenizer(baseModel!);
  const longestAnswer = parameters.max_new_tokens as number;
  const length = (text: string, isAnswered: boolean) =>
    tokenizer.encode(text).length + (isAnswered ? longestAnswer : 0);
  const all = candidates(parameters);
  const splices = Math.max(...all.map((candidate) => candidate.splices));
  const tasks: TaskTokens[] = [];
  const answers: AnsweredPrompts[] = [];
  for (const { calibration, heldOut } of splits) {
    const lengths = calibration.map(({ text, isPrompt }) => length(text, isPrompt));
    const longest = Math.max(...lengths);
    const prompts = lengths.filter((_, index) => calibration[index]!.isPrompt);
    tasks.push({ tokens: sum(lengths) + splices * longest, longest });
    const spliced = new Array<number>(prompts.length > 0 ? splices : 0).fill(longest);
    const kept = heldOut.map((text) => length(text, true));
    answers.push(
      ...calls([...prompts, ...spliced], 1, residency),
      ...calls(kept, BASELINES + all.length, residency),
    );
  }
  return { tasks, answers };
}

/** Prompts of these lengths, cut as they are answered. */
function calls(lengths: readonly number[], times: number, residency: Residency): AnsweredPrompts[] {
  const batch = answerBatch(residency, lengths.length);
  return Array.from({ length: Math.ceil(lengths.length / batch) }, (_, index) => {
    const some = lengths.slice(index * batch, (index + 1) * batch);
    return { tokens: sum(some), prompts: some.length, times };
  });
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
