import { CpuDevice, type Device, type Tensor } from "@lora-loom/tensor";
import { copyTo, frobeniusNorm } from "../algebra.ts";
import type { Delta, Site } from "../base_model.ts";
import { IterisError } from "../errors.ts";
import {
  ITERIS_DEFAULTS,
  type IterisOptions,
  precisionOf,
  resolveOptions,
  type Settings,
} from "../options.ts";
import type { OutputErrors } from "../output_error.ts";
import { placedDeltas, placedTensor } from "../placed.ts";
import { stackDeltas } from "../plan.ts";
import { ProductSum } from "../product_sum.ts";
import type { SiteReport, SiteTaskReport } from "../report.ts";
import { defaultHostSolverLimit, roundoffOf } from "../run_context.ts";
import { siteReport, type SolvedSite, solveStage } from "../solve_stage.ts";
import type { CapturedRows, CapturedSite, CapturedTask } from "./captured_site.ts";
import { notFiniteCapture, uploadGram } from "./gram_check.ts";
import { adaptiveWeightFromGram, energies } from "./weighted_output.ts";

/** Options of {@linkcode solveCaptured}: those of {@linkcode IterisOptions} that need no model. */
export interface CapturedOptions
  extends Pick<IterisOptions, "rank" | "truncation" | "precision" | "adaptiveWeights"> {
  /** α of the regulariser. Default 1e-4. */
  readonly alpha?: number;
}

/** The merged delta of one module, on the device of the merge; the caller's to dispose. */
export interface SolvedCapture {
  readonly delta: Delta;
  readonly report: SiteReport;
}

/**
 * The first solve of IterIS at one module from recorded inputs, so for models that cannot be run here: with X̃ᵢ = X_i,
 *
 *     W = [ Σ_i c_i W_i (S_i + α n_i I) ] [ Σ_i c_i (S_i + α n_i I) ]⁻¹,   S_i = X_iᵀX_i / rows,   n_i = ‖S_i‖_F
 *
 * What {@linkcode iteris} gives with `schedule: "jacobi"` and `iterations: 1`, by the same solver. λ_i makes up for the unknown number of
 * rows of a Gram matrix.
 *
 * @throws {IterisError} `invalid_option`, `no_tasks`, `no_base_weight`, `unknown_rows`, `capture_shape`, `not_finite_capture`,
 *   `gram_not_symmetric`, `gram_not_positive`, `singular_system`
 */
export async function solveCaptured(
  device: Device,
  site: CapturedSite,
  options: CapturedOptions = {},
): Promise<SolvedCapture> {
  const settings = resolveOptions(ITERIS_DEFAULTS, options);
  checkSite(site, settings);
  const solver = solverFor(device, site);
  using owned = new DisposableStack();
  const deltas = await placedDeltas(site.tasks.map(({ delta }) => delta), solver, owned);
  const baseWeight = site.baseWeight && await placedTensor(site.baseWeight, solver, owned);
  const measured: MeasuredTask[] = [];
  for (const [index, task] of site.tasks.entries()) {
    const gram = owned.use(await gramOf(solver, site, task, settings));
    const ownNorm = await gramNorm(gram, `${task.name}, ${site.module}`);
    const { adaptiveWeights } = settings;
    const adaptiveWeight = await adaptiveWeightFromGram(adaptiveWeights, gram, deltas[index], baseWeight);
    measured.push({ gram, ownNorm, delta: deltas[index], adaptiveWeight });
  }
  const stacked = stackDeltas(deltas.filter((delta) => delta !== undefined));
  owned.use(stacked.a);
  owned.use(stacked.b);
  const solved = await solve(site, measured, stacked, settings, roundoffOf(device));
  using found = solved.solution;
  const tasks: SiteTaskReport[] = [];
  for (const [index, { name }] of site.tasks.entries()) {
    const { gram, ownNorm, delta, adaptiveWeight } = measured[index]!;
    tasks.push({
      task: name,
      hasModule: delta !== undefined,
      adaptiveWeight,
      gramNorm: ownNorm,
      crossNorm: ownNorm,
      errors: await outputErrors(gram, delta, { stacked, count: deltas.length, solution: found }),
    });
  }
  return {
    delta: { a: await copyTo(device, found.a), b: await copyTo(device, found.b) },
    report: siteReport(solved, site.module, tasks),
  };
}

/** What the equations need of one task. */
interface MeasuredTask {
  /** S_i */
  readonly gram: Tensor;
  /** n_i */
  readonly ownNorm: number;
  readonly delta: Delta | undefined;
  /** λ_i */
  readonly adaptiveWeight: number;
}

function solverFor(device: Device, { inFeatures }: CapturedSite): Device {
  if (device.info.backend === "cpu") return device;
  return inFeatures <= defaultHostSolverLimit(device) ? new CpuDevice() : device;
}

async function gramNorm(gram: Tensor, where: string): Promise<number> {
  const norm = await frobeniusNorm(gram);
  if (Number.isFinite(norm)) return norm;
  throw notFiniteCapture(where, "the sum of its squares is NaN or infinite");
}

/** Solves the one site as a stage of its own, by the solver of whole models. */
async function solve(
  captured: CapturedSite,
  measured: readonly MeasuredTask[],
  stacked: Delta,
  { alpha, rank, truncation }: Settings,
  roundoff: number,
): Promise<SolvedSite> {
  const site: Site = { ...captured, writesStream: false };
  const [solved] = await solveStage({
    stage: { index: 0, name: site.module, sites: [site] },
    sites: [{
      site,
      deltas: measured.map(({ delta }) => delta),
      stackedB: stacked.b,
      baseWeight: undefined,
      weights: captured.tasks.map(({ weight }, task) => weight * measured[task]!.adaptiveWeight),
      heldOutEnergy: 0,
    }],
    moments: measured.map(({ gram, ownNorm }) => ({
      own: gram,
      drift: undefined,
      crossOfFactors: new Map(),
      stream: undefined,
      ownNorm,
      crossNorm: ownNorm,
    })),
    split: undefined,
    target: { drift: false, stream: false },
    alpha,
    rank,
    truncation,
    metric: undefined,
    roundoff,
    // A recorded Gram matrix may be as exact as float64.
    precision: "double",
  });
  return solved!;
}

function checkSite({ module, tasks, baseWeight }: CapturedSite, { alpha, adaptiveWeights }: Settings): void {
  if (!tasks.some(({ delta }) => delta)) {
    throw new IterisError(
      "no_tasks",
      `no task adapts ${module}`,
      "pass the modules that an adapter has",
      module,
    );
  }
  if (alpha === "auto") {
    throw new IterisError(
      "invalid_option",
      'alpha is "auto", expected a number: captures do not say which rows belong to one sample',
      "set alpha to a number, such as 1e-4",
      "alpha",
    );
  }
  if (adaptiveWeights === "full" && !baseWeight) {
    throw new IterisError(
      "no_base_weight",
      `adaptiveWeights is full, which needs the base weight of ${module}`,
      'pass baseWeight, or set adaptiveWeights to "delta"',
      module,
    );
  }
  const unknown = tasks.find(({ inputs }) => inputs.kind === "gram");
  if (adaptiveWeights === "none" && unknown) {
    throw new IterisError(
      "unknown_rows",
      `without adaptive weights every row counts alike, and the Gram matrix of ${module} does not say of how many rows it is`,
      "set adaptive_weights to delta, or record the inputs themselves",
      `${unknown.name}, ${module}`,
    );
  }
}

/** S_i on the device where the module is solved. */
async function gramOf(
  solver: Device,
  { module, inFeatures }: CapturedSite,
  { name, inputs }: CapturedTask,
  settings: Settings,
): Promise<Tensor> {
  const where = `${name}, ${module}`;
  if (inputs.kind === "inputs") return await sumOfRows(solver, inputs, inFeatures, settings, where);
  if (inputs.values.length !== inFeatures ** 2) {
    throw wrongShape(`${inputs.values.length} numbers`, `[${inFeatures}, ${inFeatures}]`, where);
  }
  return await uploadGram(solver, inputs.values, inFeatures, where);
}

/** XᵀX / rows. */
async function sumOfRows(
  solver: Device,
  { rows, batches }: CapturedRows,
  inFeatures: number,
  settings: Settings,
  where: string,
): Promise<Tensor> {
  using sum = new ProductSum(precisionOf(settings), 1 / rows);
  for await (const piece of batches()) {
    using batch = piece;
    if (batch.shape[1] !== inFeatures) throw wrongShape(`[${batch.shape}]`, `[rows, ${inFeatures}]`, where);
    sum.add(batch, batch);
  }
  const gram = await sum.takeTo(solver);
  return gram ?? solver.zeros([inFeatures, inFeatures]);
}

function wrongShape(found: string, expected: string, where: string): IterisError {
  return new IterisError(
    "capture_shape",
    `what was captured is ${found}, expected ${expected}`,
    "record the input of the module itself, with the base model that the adapter was trained on",
    where,
  );
}

/** Relative output errors on a task's captured inputs: plain roots where the target is zero. */
async function outputErrors(
  gram: Tensor,
  delta: Delta | undefined,
  { stacked, count, solution }: { stacked: Delta; count: number; solution: Delta },
): Promise<OutputErrors> {
  const target = delta ? [{ delta, factor: 1 }] : [];
  const { output: energy } = await energies(gram, { terms: target });
  const errorOf = async (merged: Delta, factor: number) => {
    const { output } = await energies(gram, { terms: [...target, { delta: merged, factor: -factor }] });
    return Math.sqrt(Math.max(output, 0) / (energy || 1));
  };
  return {
    sum: await errorOf(stacked, 1),
    mean: await errorOf(stacked, 1 / count),
    merged: await errorOf(solution, 1),
  };
}
