import {
  type Adapter,
  type LoraModule,
  openAdapter,
  type OpenOptions,
  servingRank,
  type ServingReport,
  servingReport,
  type Warning,
} from "@lora-loom/formats";
import { effectiveRank, type Factored, spectrum } from "../linalg/factored.ts";

/** What one module of an adapter is. */
export interface ModuleInspection {
  readonly name: string;
  readonly rank: number;
  readonly in_features: number;
  readonly out_features: number;
  readonly alpha: number;
  readonly scale: number;
  readonly dtype: string;
  /** ‖ΔW‖_F, the scale included. */
  readonly norm: number;
  /** Singular values of ΔW, largest first. */
  readonly singular_values: readonly number[];
  /** e to the entropy of the singular values: between 1 and the rank. */
  readonly effective_rank: number;
  /** How many singular values hold 99 % of ‖ΔW‖². */
  readonly rank_99: number;
}

/** What an adapter is, in the names of `inspect --json`. */
export interface Inspection {
  readonly path: string;
  readonly name: string;
  readonly format: string;
  readonly base_model: string | null;
  readonly files: readonly string[];
  readonly ranks: readonly number[];
  readonly scales: readonly number[];
  /** ‖ΔW‖_F over all modules. */
  readonly norm: number;
  /** Numbers in all factors. */
  readonly parameters: number;
  readonly modules: readonly ModuleInspection[];
  readonly problems: readonly Warning[];
  /** The smallest of vLLM's `--max-lora-rank` values that holds it. */
  readonly max_lora_rank: number;
  /** Where it loads as it is, and why not. */
  readonly serving: ServingReport;
}

/** Part of ‖ΔW‖² that {@linkcode ModuleInspection.rank_99} holds. */
const ENERGY = 0.99;

function rankForEnergy(values: ArrayLike<number>): number {
  const squares = Array.from(values, (value) => value * value);
  const total = squares.reduce((sum, square) => sum + square, 0);
  let kept = 0;
  for (let count = 0; count < squares.length; count++) {
    if (kept >= ENERGY * total) return count;
    kept += squares[count]!;
  }
  return squares.length;
}

function firstNotFinite(values: Float32Array): boolean {
  return !values.every(Number.isFinite);
}

/** Problems that only the values show. */
function valueProblems(module: LoraModule, a: Float32Array, b: Float32Array): Warning[] {
  const where = module.name;
  if (firstNotFinite(a) || firstNotFinite(b)) {
    return [{ code: "not_finite", message: `${where} holds NaN or infinity; merging refuses it`, where }];
  }
  if (b.every((value) => value === 0)) {
    return [{
      code: "untrained",
      message: `${where} has B = 0: it was never trained and changes nothing`,
      where,
    }];
  }
  if (a.every((value) => value === 0)) {
    return [{ code: "zero_delta", message: `${where} has A = 0: it changes nothing`, where }];
  }
  return [];
}

async function inspectModule(module: LoraModule, problems: Warning[]): Promise<ModuleInspection> {
  const { name, rank, inFeatures, outFeatures, alpha, scale } = module;
  const a = await module.a.readFloat32();
  const b = await module.b.readFloat32();
  const found = valueProblems(module, a, b);
  problems.push(...found);
  const isFinite = !found.some(({ code }) => code === "not_finite");
  const delta: Factored = { rank, inFeatures, outFeatures, scale, a, b };
  const values = isFinite ? spectrum(delta) : new Float64Array(0);
  return {
    name,
    rank,
    in_features: inFeatures,
    out_features: outFeatures,
    alpha,
    scale,
    dtype: module.a.dtype,
    norm: isFinite ? Math.sqrt(values.reduce((sum, value) => sum + value * value, 0)) : NaN,
    singular_values: [...values],
    effective_rank: effectiveRank(values),
    rank_99: rankForEnergy(values),
  };
}

/** Numbers that occur, each once, ascending. */
function distinct(values: readonly number[]): number[] {
  return [...new Set(values)].sort((x, y) => x - y);
}

/** Looks at every module of an open adapter. Singular values come from QR and a small SVD in float64. */
export async function inspectOpenAdapter(adapter: Adapter): Promise<Inspection> {
  const problems: Warning[] = [...adapter.warnings];
  const modules: ModuleInspection[] = [];
  for (const module of adapter.modules.values()) modules.push(await inspectModule(module, problems));
  const ranks = distinct(modules.map(({ rank }) => rank));
  return {
    path: adapter.path,
    name: adapter.name,
    format: adapter.format,
    base_model: adapter.baseModel ?? null,
    files: adapter.files,
    ranks,
    scales: distinct(modules.map(({ scale }) => scale)),
    norm: Math.sqrt(modules.reduce((sum, { norm }) => sum + norm ** 2, 0)),
    parameters: modules.reduce(
      (sum, { rank, in_features, out_features }) => sum + rank * (in_features + out_features),
      0,
    ),
    modules,
    problems,
    max_lora_rank: servingRank(Math.max(...ranks)),
    serving: servingReport(adapter),
  };
}

/**
 * Says what the adapter at a path is.
 *
 * @throws {FormatError} when it cannot be read
 */
export async function inspectAdapter(path: string, options: OpenOptions = {}): Promise<Inspection> {
  using adapter = await openAdapter(path, options);
  return await inspectOpenAdapter(adapter);
}
