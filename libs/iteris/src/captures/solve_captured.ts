import { CpuDevice, type Device, type Tensor } from "@lora-loom/tensor";
import { copyTo, frobeniusNorm } from "../algebra.ts";
import type { Delta, Site } from "../base_model.ts";
import type { Moments } from "../equations.ts";
import { IterisError } from "../errors.ts";
import {
  ITERIS_DEFAULTS,
  type IterisOptions,
  precisionOf,
  resolveOptions,
  type Settings,
} from "../options.ts";
import type { OutputErrors } from "../output_error.ts";
import { stackDeltas } from "../plan.ts";
import { ProductSum } from "../product_sum.ts";
import type { SiteReport } from "../report.ts";
import { defaultHostSolverLimit, roundoffOf } from "../run_context.ts";
import { solveStage } from "../solve_stage.ts";
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
  const placed = async (tensor: Tensor) =>
    tensor.device === solver ? tensor : owned.use(await copyTo(solver, tensor));

  const deltas: (Delta | undefined)[] = [];
  for (const { delta } of site.tasks) {
    deltas.push(delta && { a: await placed(delta.a), b: await placed(delta.b) });
  }
  const baseWeight = site.baseWeight && await placed(site.baseWeight);
  const moments: Moments[] = [];
  const lambdas: number[] = [];
  for (const [index, task] of site.tasks.entries()) {
    const own = owned.use(await gramOf(solver, site, task, settings));
    const ownNorm = await frobeniusNorm(own);
    const where = `${task.name}, ${site.module}`;
    if (!Number.isFinite(ownNorm)) throw notFiniteCapture(where, "the sum of its squares is NaN or infinite");
    moments.push({
      own,
      drift: undefined,
      crossOfFactors: new Map(),
      stream: undefined,
      ownNorm,
      crossNorm: ownNorm,
    });
    lambdas.push(await adaptiveWeightFromGram(settings.adaptiveWeights, own, deltas[index], baseWeight));
  }
  const stacked = stackDeltas(deltas.filter((delta) => delta !== undefined));
  owned.use(stacked.a);
  owned.use(stacked.b);
  const modelSite: Site = { ...site, writesStream: false };
  const [solved] = await solveStage({
    stage: { index: 0, name: site.module, sites: [modelSite] },
    sites: [{
      site: modelSite,
      deltas,
      stackedB: stacked.b,
      baseWeight: undefined,
      weights: site.tasks.map(({ weight }, task) => weight * lambdas[task]!),
      heldOutEnergy: 0,
    }],
    moments,
    split: undefined,
    target: { drift: false, stream: false },
    alpha: settings.alpha,
    rank: settings.rank,
    truncation: settings.truncation,
    metric: undefined,
    roundoff: roundoffOf(device),
    // A recorded Gram matrix may be as exact as float64.
    precision: "double",
  });
  const { solution, ...figures } = solved!;
  using found = solution;
  const errors = await outputErrors(moments, deltas, stacked, found);
  return {
    delta: { a: await copyTo(device, found.a), b: await copyTo(device, found.b) },
    report: {
      ...figures,
      stage: site.module,
      backwardError: found.backwardError,
      iterations: found.iterations,
      rank: found.rank,
      tasks: site.tasks.map(({ name }, task) => ({
        task: name,
        hasModule: deltas[task] !== undefined,
        adaptiveWeight: lambdas[task]!,
        gramNorm: moments[task]!.ownNorm,
        crossNorm: moments[task]!.crossNorm,
        errors: errors[task]!,
      })),
    },
  };
}

function solverFor(device: Device, { inFeatures }: CapturedSite): Device {
  if (device.info.backend === "cpu") return device;
  return inFeatures <= defaultHostSolverLimit(device) ? new CpuDevice() : device;
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

/** Relative output errors on the captured inputs by task: plain roots where the target is zero. */
async function outputErrors(
  moments: readonly Moments[],
  deltas: readonly (Delta | undefined)[],
  stacked: Delta,
  solution: Delta,
): Promise<OutputErrors[]> {
  const errors: OutputErrors[] = [];
  for (const [task, { own }] of moments.entries()) {
    const target = deltas[task] ? [{ delta: deltas[task], factor: 1 }] : [];
    const { output: energy } = await energies(own, { terms: target });
    const errorOf = async (delta: Delta, factor: number) => {
      const { output } = await energies(own, { terms: [...target, { delta, factor: -factor }] });
      return Math.sqrt(Math.max(output, 0) / (energy || 1));
    };
    errors.push({
      sum: await errorOf(stacked, 1),
      mean: await errorOf(stacked, 1 / deltas.length),
      merged: await errorOf(solution, 1),
    });
  }
  return errors;
}
