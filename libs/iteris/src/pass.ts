import { disposeDeltas } from "./algebra.ts";
import type { Delta, Deltas, Stage } from "./base_model.ts";
import { ErrorTable } from "./error_table.ts";
import { gather, type Gathered } from "./gather.ts";
import type { OutputErrors } from "./output_error.ts";
import { KeptDeltas } from "./kept_deltas.ts";
import { placeProblem } from "./place.ts";
import type { PlannedSite } from "./plan.ts";
import { recordStage, replayStage, stagesKnown } from "./replay.ts";
import type { SiteReport } from "./report.ts";
import type { Run } from "./run_context.ts";
import { siteReport, type SolvedSite, solveStage } from "./solve_stage.ts";
import { type LoadedPair, TaskStream } from "./streams/task_stream.ts";

/** What the merged model carries while a pass goes through the stages. */
export interface Applied {
  /** `solved`: each stage what was solved for it; otherwise these deltas, none meaning that the experts' inputs are used. */
  readonly deltas: "solved" | Deltas | undefined;
  /** Whether to measure output errors. */
  readonly measure: boolean;
}

/** The outcome of one pass. The deltas live on the run's device and are the caller's. */
export interface PassResult {
  readonly deltas: Map<string, Delta>;
  readonly sites: SiteReport[];
}

const NO_DELTAS: Deltas = new Map();
const UNMEASURED: OutputErrors = { sum: 0, mean: 0, merged: 0 };

/** A pass on its way. */
interface Pass {
  readonly run: Run;
  /** From 1. */
  readonly number: number;
  readonly streams: readonly TaskStream[];
  readonly applied: Applied;
  /** What the stages so far gave. */
  readonly result: PassResult;
  readonly kept: KeptDeltas;
  /** What the last stage measured, on its way: the device goes on meanwhile. */
  finishing: Promise<void>;
}

/**
 * Leads all samples through all stages once, solving every stage from what arrives there. Stages that the journal knows are not solved
 * again: the samples only pass through them, and not even that where it knows all of them.
 *
 * @param number of the pass, from 1
 */
export async function runPass(run: Run, number: number, applied: Applied): Promise<PassResult> {
  const { stages } = run.model;
  const known = stagesKnown(run, number);
  const streams = known < stages.length ? await beginStreams(run) : [];
  const result: PassResult = { deltas: new Map(), sites: [] };
  using kept = new KeptDeltas(run, stages.slice(known));
  const pass: Pass = { run, number, streams, applied, result, kept, finishing: Promise.resolve() };
  try {
    for (const stage of stages) {
      // Where all stages are known, no sample passes through, and no weight is needed.
      using _weights = streams.length > 0 ? await run.model.hold?.(stage) : undefined;
      if (stage.index < known) await passStage(pass, stage);
      else await runStage(pass, stage);
      run.onStage(stage);
    }
    await pass.finishing;
  } catch (error) {
    await pass.finishing.catch(() => {});
    disposeDeltas(result.deltas);
    throw error;
  }
  for (const stream of streams) await stream.release();
  return result;
}

async function beginStreams({ plan, model, store, tokensPerChunk, settings }: Run): Promise<TaskStream[]> {
  const holdOut = settings.alpha === "auto";
  const streams: TaskStream[] = [];
  for (const task of plan.tasks) {
    streams.push(await TaskStream.begin(task, model, store, { tokensPerChunk, holdOut }));
  }
  return streams;
}

/** Leads the samples through a stage that was solved before. */
async function passStage(pass: Pass, stage: Stage): Promise<void> {
  const { run, result } = pass;
  run.signal?.throwIfAborted();
  const { deltas, sites } = await replayStage(run, pass.number, stage);
  for (const [module, delta] of deltas) result.deltas.set(module, delta);
  result.sites.push(...sites);
  await leadThrough(pass, stage);
}

async function runStage(pass: Pass, stage: Stage): Promise<void> {
  const { run, streams, applied, result } = pass;
  const sites = run.plan.sites.get(stage.index) ?? [];
  const solved = new Map<string, Delta>();
  let reports: SiteReport[] = [];
  if (sites.length > 0) {
    using gathered = await gather(run, stage, sites, streams);
    reports = await solve(run, stage, sites, gathered, solved, pass.kept);
  }
  for (const [module, delta] of solved) result.deltas.set(module, delta);

  using owned = new DisposableStack();
  const errors = applied.measure && sites.length > 0
    ? owned.use(new ErrorTable(run, sites, solved))
    : undefined;
  await leadThrough(pass, stage, errors && ((task, pair) => errors.add(task, pair)));
  await pass.finishing;
  owned.move();
  pass.finishing = finishStage(pass, stage, solved, reports, errors);
  pass.finishing.catch(() => {}); // awaited after the next stage; must not count as unhandled meanwhile
}

/** Reads back what was measured of a stage, and puts it down. */
async function finishStage(
  { run, number, result }: Pass,
  stage: Stage,
  solved: Deltas,
  reports: readonly SiteReport[],
  errors: ErrorTable | undefined,
): Promise<void> {
  using table = errors;
  await table?.settle();
  const measured = table ? reports.map((report, site) => withErrors(report, table.of(site))) : reports;
  result.sites.push(...measured);
  await recordStage(run, number, stage, solved, measured);
}

/** Leads all samples to the next stage, where there is one; `look` sees each batch before. */
async function leadThrough(
  { run, streams, applied, result }: Pass,
  stage: Stage,
  look?: (task: number, pair: LoadedPair) => Promise<void>,
): Promise<void> {
  const carried = applied.deltas === "solved" ? result.deltas : applied.deltas ?? NO_DELTAS;
  const isLast = stage.index === run.model.stages.length - 1;
  for (const [task, stream] of streams.entries()) {
    for (let chunk = 0; chunk < stream.length; chunk++) {
      run.signal?.throwIfAborted();
      using pair = await stream.load(chunk, stage);
      await look?.(task, pair);
      if (!isLast) await stream.advance(chunk, stage, pair, carried);
    }
  }
}

/** Solves a stage, puts the deltas into `solved` on the run's device, and reports all but the output errors. */
async function solve(
  run: Run,
  stage: Stage,
  sites: readonly PlannedSite[],
  gathered: Gathered,
  solved: Map<string, Delta>,
  kept: KeptDeltas,
): Promise<SiteReport[]> {
  using problem = await placeProblem(run, stage, sites, gathered);
  const solutions = new Map<string, SolvedSite>();
  for (const site of await solveStage(problem)) {
    using solution = site.solution;
    solutions.set(site.module, site);
    solved.set(site.module, await kept.copyOf(site.module, solution));
  }
  return sites.map((site, index) => {
    const tasks = run.plan.tasks.map(({ name }, task) => ({
      task: name,
      hasModule: site.deltas[task] !== undefined,
      adaptiveWeight: gathered.adaptiveWeights[index]![task]!,
      gramNorm: gathered.moments[task]!.ownNorm,
      crossNorm: gathered.moments[task]!.crossNorm,
      errors: UNMEASURED,
    }));
    return siteReport(solutions.get(site.site.module)!, stage.name, tasks);
  });
}

function withErrors(report: SiteReport, errors: readonly OutputErrors[]): SiteReport {
  return { ...report, tasks: report.tasks.map((task, index) => ({ ...task, errors: errors[index]! })) };
}
