import { type Adapter, alignAdapters, assertFinite, type LoraModule, openAdapter } from "@lora-loom/formats";
import { MergeError } from "../errors.ts";
import { combinationNorm, type Factored } from "../linalg/factored.ts";

/** Relative Frobenius distances ‖ΔA − ΔB‖ / ‖ΔB‖ between two adapters. */
export interface Distances {
  /** Over all modules at once: the root of the summed squares of both. */
  readonly overall: number;
  readonly worst: { readonly module: string; readonly distance: number };
  readonly modules: Readonly<Record<string, number>>;
  /** Modules that only one side has; they count as zero on the other. */
  readonly onlyInA: readonly string[];
  readonly onlyInB: readonly string[];
}

async function load({ modules, path }: Adapter, name: string): Promise<Factored | undefined> {
  const module = modules.get(name);
  if (!module) return undefined;
  const { rank, inFeatures, outFeatures, scale } = module;
  const [a, b] = [await module.a.readFloat32(), await module.b.readFloat32()];
  // The distance of NaN from anything is no number, and would hide every other one.
  assertFinite(a, `${path}: ${name} lora_A`);
  assertFinite(b, `${path}: ${name} lora_B`);
  return { rank, inFeatures, outFeatures, scale, a, b };
}

function checkSameShape(name: string, a: LoraModule | undefined, b: LoraModule | undefined): void {
  if (!a || !b || (a.inFeatures === b.inFeatures && a.outFeatures === b.outFeatures)) return;
  throw new MergeError(
    "shape_mismatch",
    `${name} is [${a.outFeatures}, ${a.inFeatures}] in A and [${b.outFeatures}, ${b.inFeatures}] in B`,
    "compare adapters of one base model",
    name,
  );
}

/** Without a common module every distance is 1 or infinite, whatever the adapters hold. */
function requireCommonModule(a: Adapter, b: Adapter): void {
  if ([...a.modules.keys()].some((name) => b.modules.has(name))) return;
  const describe = ({ path, modules }: Adapter) =>
    `${path} has ${modules.size}, the first ${modules.keys().next().value}`;
  throw new MergeError(
    "nothing_in_common",
    `the two adapters have no module in common: ${describe(a)}; ${describe(b)}`,
    "compare adapters of one base model that adapt the same modules",
    a.path,
  );
}

/** A distance relative to a norm; infinite when something differs from nothing. */
function ratio(distance: number, norm: number): number {
  if (distance === 0) return 0;
  return norm === 0 ? Infinity : distance / norm;
}

/**
 * Compares what two open adapters do, whatever their ranks, scales or factorisations.
 *
 * @throws {MergeError} `nothing_in_common`, `shape_mismatch`; {FormatError} `not_finite` naming the adapter and the module
 */
export async function compareAdapters(a: Adapter, b: Adapter): Promise<Distances> {
  requireCommonModule(a, b);
  const names = [...new Set([...b.modules.keys(), ...a.modules.keys()])];
  const modules: Record<string, number> = {};
  let worst = { module: "", distance: -1 };
  let distanceSquares = 0;
  let normSquares = 0;
  for (const name of names) {
    checkSameShape(name, a.modules.get(name), b.modules.get(name));
    const left = await load(a, name);
    const right = await load(b, name);
    const distance = combinationNorm([
      ...(left ? [[left, 1] as const] : []),
      ...(right ? [[right, -1] as const] : []),
    ]);
    const norm = right ? combinationNorm([[right, 1]]) : 0;
    distanceSquares += distance ** 2;
    normSquares += norm ** 2;
    modules[name] = ratio(distance, norm);
    if (modules[name] > worst.distance) worst = { module: name, distance: modules[name] };
  }
  return {
    overall: ratio(Math.sqrt(distanceSquares), Math.sqrt(normSquares)),
    worst,
    modules,
    onlyInA: [...a.modules.keys()].filter((name) => !b.modules.has(name)),
    onlyInB: [...b.modules.keys()].filter((name) => !a.modules.has(name)),
  };
}

/** {@linkcode compareAdapters} of two paths. */
export async function diffAdapters(pathA: string, pathB: string): Promise<Distances> {
  using a = await openAdapter(pathA);
  using b = await openAdapter(pathB);
  // The names of B stand where the two call a module differently.
  const [right, left] = await alignAdapters([b, a]);
  return await compareAdapters(left!, right!);
}
