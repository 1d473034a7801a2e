import type { Adapter, LoraModule, ModuleForm, ModuleKeys, Warning } from "@lora-loom/formats";
import { MergeError } from "../errors.ts";
import type { Method } from "../methods/method.ts";
import { moduleGlob } from "../recipe/globs.ts";
import { didYouMean } from "../recipe/nearest.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { checkOneBase } from "./check_one_base.ts";

/** One adapter's part of a planned module. */
export interface PlannedSource {
  /** Position in the recipe. */
  readonly adapter: number;
  readonly weight: number;
  readonly module: LoraModule;
}

/** One module to merge. */
export interface PlannedModule {
  readonly name: string;
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** Linear unless it says otherwise. */
  readonly form: ModuleForm | undefined;
  /** Its tensors' names in the first adapter, where that is in the layout that is written. */
  readonly keys: ModuleKeys | undefined;
  /** In the recipe's order; only the adapters that have the module. */
  readonly sources: readonly PlannedSource[];
  /** N = Σ r_t. */
  readonly pooledRank: number;
  /** Rank that the method gives it; the file pads it to {@linkcode Plan.rank}. */
  readonly rank: number;
  /** Bytes of device memory that its inputs and result take in f32. */
  readonly bytes: number;
}

/** What a merge will do, known before any tensor is read. */
export interface Plan {
  /** In natural order of their names, so that the output does not depend on the order of the inputs. */
  readonly modules: readonly PlannedModule[];
  /** Uniform rank of the merged adapter. */
  readonly rank: number;
  /** The base model's name that the adapters record, where they agree; else the recipe's path of it. */
  readonly baseModelName: string | undefined;
  /** Bytes of device memory that the largest module takes. */
  readonly largestModuleBytes: number;
  readonly warnings: readonly Warning[];
}

/** How natural order compares names: `layers.2` before `layers.10`. */
const natural = new Intl.Collator("en", { numeric: true });

function compareNames(left: string, right: string): number {
  return natural.compare(left, right) || (left < right ? -1 : left > right ? 1 : 0);
}

/** At most three names in a list, and how many more there are. */
function sample(names: readonly string[]): string {
  const shown = names.slice(0, 3).join(", ");
  return names.length > 3 ? `${shown} and ${names.length - 3} more` : shown;
}

/** Names that pass the recipe's filters. */
function selectModules(names: readonly string[], recipe: Recipe, warnings: Warning[]): string[] {
  const include = recipe.include.map(moduleGlob);
  const exclude = recipe.exclude.map(moduleGlob);
  recipe.include.forEach((pattern, index) => {
    if (names.some(include[index]!)) return;
    throw new MergeError(
      "no_module_matches",
      `no module of the adapters matches the pattern ${JSON.stringify(pattern)}; ${
        didYouMean(pattern, lastParts(names))
      }`,
      "write patterns such as *.q_proj; a star also crosses dots",
      `include.${index}`,
    );
  });
  recipe.exclude.forEach((pattern, index) => {
    if (names.some(exclude[index]!)) return;
    const message = `no module matches ${JSON.stringify(pattern)}, so it excludes nothing`;
    warnings.push({ code: "pattern_without_match", message, where: `exclude.${index}` });
  });
  const kept = names.filter((name) =>
    (include.length === 0 || include.some((test) => test(name))) && !exclude.some((test) => test(name))
  );
  if (kept.length > 0) return kept;
  throw new MergeError(
    "nothing_to_merge",
    `the filters leave none of ${names.length} modules`,
    "loosen include or exclude",
    "include, exclude",
  );
}

function lastParts(names: readonly string[]): string[] {
  return [...new Set(names.map((name) => `*.${name.split(".").at(-1)}`))];
}

function checkShapes(name: string, sources: readonly PlannedSource[], adapters: readonly Adapter[]): void {
  const [first, ...others] = sources;
  for (const other of others) {
    const { inFeatures, outFeatures } = other.module;
    if (inFeatures === first!.module.inFeatures && outFeatures === first!.module.outFeatures) continue;
    const describe = (source: PlannedSource) =>
      `${adapters[source.adapter]!.path} has [${source.module.outFeatures}, ${source.module.inFeatures}]`;
    throw new MergeError(
      "shape_mismatch",
      `the adapters disagree on the shape of ${name}: ${describe(first!)}, ${describe(other)}`,
      `merge adapters of one base model, or leave the module out with exclude: ["${name}"]`,
      name,
    );
  }
}

/** One adapter for a base that stores [in, out] and one for [out, in] are not adapters of one base. */
function checkLayouts(adapters: readonly Adapter[]): void {
  const other = adapters.find(({ fanInFanOut }) => fanInFanOut !== adapters[0]!.fanInFanOut);
  if (!other) return;
  const describe = ({ path, fanInFanOut }: Adapter) => `${path} says ${fanInFanOut}`;
  throw new MergeError(
    "layouts_differ",
    `the adapters disagree on fan_in_fan_out: ${describe(adapters[0]!)}, ${describe(other)}`,
    "merge adapters of one base model",
    "fan_in_fan_out",
  );
}

/** Bytes of the f32 factors, their raw form and the result. */
function deviceBytes(inFeatures: number, outFeatures: number, pooledRank: number, rank: number): number {
  return 4 * (inFeatures + outFeatures) * (2 * pooledRank + rank);
}

/** Warns where nothing can come out but zeros. */
function warnOfZeroWeights({ adapters }: Recipe, warnings: Warning[]): void {
  if (adapters.some(({ weight }) => weight !== 0)) return;
  const message =
    "every adapter has weight 0, so the merged adapter does nothing; give one of them another weight";
  warnings.push({ code: "weights_zero", message, where: "adapters" });
}

/** Warns of modules that only some adapters have: the others count as zero there. */
function warnOfPartialModules(modules: readonly PlannedModule[], recipe: Recipe, warnings: Warning[]): void {
  recipe.adapters.forEach(({ name, path }, index) => {
    const missing = modules.filter(({ sources }) => !sources.some(({ adapter }) => adapter === index)).map((
      module,
    ) => module.name);
    if (missing.length === 0) return;
    const share = `${missing.length} of ${modules.length} modules`;
    const message = `${name} lacks ${share} (${
      sample(missing)
    }); those are merged from the other adapters alone`;
    warnings.push({ code: "modules_missing", message, where: path });
  });
}

function commonBaseModel(
  adapters: readonly Adapter[],
  recipe: Recipe,
  warnings: Warning[],
): string | undefined {
  const named = adapters.flatMap(({ baseModel }, index) =>
    baseModel ? [{ baseModel, name: recipe.adapters[index]!.name }] : []
  );
  const distinct = [...new Set(named.map(({ baseModel }) => baseModel))];
  if (distinct.length > 1) {
    const list = named.map(({ name, baseModel }) => `${name}: ${baseModel}`).join(", ");
    const message =
      `the adapters name different base models (${list}); a merge only makes sense when they are the same`;
    warnings.push({ code: "base_models_differ", message, where: "adapters" });
  }
  return distinct.length === 1 ? distinct[0] : undefined;
}

/**
 * Decides what will be merged, and refuses what cannot be.
 *
 * @param adapters open, in the recipe's order
 * @throws {MergeError} `shape_mismatch`, `layouts_differ`, `task_types_differ`, `bases_differ`, `no_module_matches`,
 * `nothing_to_merge` or what the method's own check throws
 */
export function planMerge(recipe: Recipe, adapters: readonly Adapter[], method: Method): Plan {
  checkLayouts(adapters);
  const warnings: Warning[] = adapters.flatMap((adapter) => adapter.warnings);
  checkOneBase(adapters, recipe, warnings);
  const all = [...new Set(adapters.flatMap(({ modules }) => [...modules.keys()]))].sort(compareNames);
  const pools = selectModules(all, recipe, warnings).map((name) => ({
    name,
    sources: sourcesOf(name, recipe, adapters),
  }));
  const ranks = pools.map(({ name, sources }) => {
    const { inFeatures, outFeatures } = sources[0]!.module;
    return { name, inFeatures, outFeatures, ranks: sources.map(({ module }) => module.rank) };
  });
  method.check?.({ modules: ranks, adapters: adapters.length }, recipe.parameters);
  const modules = pools.map(({ name, sources }, index): PlannedModule => {
    checkShapes(name, sources, adapters);
    const { inFeatures, outFeatures, form, keys } = sources[0]!.module;
    const { format } = adapters[sources[0]!.adapter]!;
    const pooledRank = ranks[index]!.ranks.reduce((sum, rank) => sum + rank, 0);
    const rank = method.outputRank(ranks[index]!.ranks, recipe.parameters);
    return {
      name,
      inFeatures,
      outFeatures,
      form,
      keys: format === recipe.output.format ? keys : undefined,
      sources,
      pooledRank,
      rank,
      bytes: deviceBytes(inFeatures, outFeatures, pooledRank, rank),
    };
  });
  warnOfZeroWeights(recipe, warnings);
  warnOfPartialModules(modules, recipe, warnings);
  return {
    modules,
    rank: Math.max(...modules.map(({ rank }) => rank)),
    baseModelName: commonBaseModel(adapters, recipe, warnings) ?? recipe.baseModel,
    largestModuleBytes: Math.max(...modules.map(({ bytes }) => bytes)),
    warnings,
  };
}

function sourcesOf(name: string, recipe: Recipe, adapters: readonly Adapter[]): PlannedSource[] {
  return adapters.flatMap((adapter, index) => {
    const module = adapter.modules.get(name);
    return module ? [{ adapter: index, weight: recipe.adapters[index]!.weight, module }] : [];
  });
}
