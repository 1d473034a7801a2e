import { CpuDevice, type Device, gemm, type Tensor } from "@lora-loom/tensor";
import { disposeDeltas, frobeniusNorm } from "./algebra.ts";
import type { Delta, Deltas } from "./base_model.ts";
import type { Settings } from "./options.ts";
import type { OutputErrors } from "./output_error.ts";
import { makePlan, type Plan } from "./plan.ts";
import { type PassResult, runPass } from "./pass.ts";
import type { MergeReport, SiteReport } from "./report.ts";
import type { MergeRequest } from "./request.ts";
import { defaultHostSolverLimit, type Run } from "./run_context.ts";
import { StateStore } from "./streams/state_store.ts";

/** A merged adapter. */
export interface Merged {
  /** W = b·a by module, on the request's device; the caller's to dispose. */
  readonly deltas: Map<string, Delta>;
  readonly report: MergeReport;
}

const DEFAULT_TOKENS_PER_CHUNK = 1024;
const DEFAULT_HOST_BYTES = 64 * 2 ** 20;

/** A software driver's memory is the host's: nothing is gained by keeping states there. */
function defaultDeviceBytes({ info }: Device): number {
  return info.class === "tensor" || info.class === "gpu" ? 2 ** 31 : 0;
}

/** Runs the schedule that `settings` ask for. */
export async function run(request: MergeRequest<unknown>, settings: Settings): Promise<Merged> {
  const { device, model, memory, signal } = request;
  using plan = await makePlan(model, request.tasks, settings);
  await using store = new StateStore(
    device,
    memory?.hostBytes ?? DEFAULT_HOST_BYTES,
    memory?.deviceBytes ?? defaultDeviceBytes(device),
  );
  const passes = settings.schedule === "sweep" ? 1 : settings.iterations;
  let done = 0;
  const context: Run = {
    device,
    host: device.info.backend === "cpu" ? device : new CpuDevice(),
    model,
    settings,
    plan,
    store,
    metrics: request.metrics,
    journal: request.journal,
    tokensPerChunk: memory?.tokensPerChunk ?? DEFAULT_TOKENS_PER_CHUNK,
    hostSolverLimit: memory?.hostSolverLimit ?? defaultHostSolverLimit(device),
    adaptiveWeights: new Map(),
    onStage(stage) {
      const iteration = 1 + Math.floor(done / model.stages.length);
      done++;
      request.progress?.({ stage: stage.name, done, total: passes * model.stages.length, iteration });
    },
    signal,
  };
  if (settings.schedule === "sweep") {
    const result = await runPass(context, 1, { deltas: "solved", measure: true });
    return { deltas: result.deltas, report: reportOf(plan, result.sites, 1, []) };
  }
  return await jacobi(context);
}

/** Solves all stages from what the previous solution produces, starting from the experts' own inputs. */
async function jacobi(context: Run): Promise<Merged> {
  const { iterations, tolerance } = context.settings;
  const changes: number[] = [];
  let result: PassResult | undefined;
  try {
    for (let iteration = 1; iteration <= iterations; iteration++) {
      const measure = iteration === iterations || tolerance > 0;
      const next = await runPass(context, iteration, { deltas: result?.deltas, measure });
      const previous = result;
      result = next;
      if (!previous) continue;
      changes.push(await largestChange(previous.deltas, next.deltas));
      disposeDeltas(previous.deltas);
      if (changes.at(-1)! <= tolerance) break;
    }
  } catch (error) {
    if (result) disposeDeltas(result.deltas);
    throw error;
  }
  return {
    deltas: result!.deltas,
    report: reportOf(context.plan, result!.sites, changes.length + 1, changes),
  };
}

/** max ‖W − W'‖_F / ‖W'‖_F over the modules. */
async function largestChange(before: Deltas, after: Deltas): Promise<number> {
  let largest = 0;
  for (const [module, delta] of after) {
    const old = before.get(module)!;
    using weight = gemm(delta.b, delta.a);
    const norm = await frobeniusNorm(weight);
    using difference: Tensor = gemm(old.b, old.a, { alpha: -1, into: weight, beta: 1 });
    largest = Math.max(largest, await frobeniusNorm(difference) / (norm || 1));
  }
  return largest;
}

function reportOf(
  { tasks, sites: planned }: Plan,
  sites: readonly SiteReport[],
  passes: number,
  changes: readonly number[],
): MergeReport {
  return {
    sites,
    tasks: tasks.map(({ name, sequences }) => ({
      task: name,
      samples: sequences.length,
      tokens: sequences.reduce((sum, { tokens }) => sum + tokens.length, 0),
    })),
    missing: [...planned.values()].flat().flatMap(({ site, deltas }) =>
      deltas.flatMap((delta, task) => delta ? [] : [{ task: tasks[task]!.name, module: site.module }])
    ),
    passes,
    changes,
    meanErrors: meanErrors(sites),
  };
}

function meanErrors(sites: readonly SiteReport[]): OutputErrors {
  const all = sites.flatMap(({ tasks }) => tasks.map(({ errors }) => errors));
  const mean = (pick: (errors: OutputErrors) => number) =>
    all.reduce((sum, errors) => sum + pick(errors), 0) / (all.length || 1);
  return {
    sum: mean(({ sum }) => sum),
    mean: mean(({ mean }) => mean),
    merged: mean(({ merged }) => merged),
  };
}
