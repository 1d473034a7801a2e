import { isAbsolute, relative } from "node:path";
import type { ServingReport, Warning } from "@lora-loom/formats";
import type { DeviceInfo } from "@lora-loom/tensor";
import { memoryInRecipe, type Recipe } from "../recipe/recipe.ts";
import type { RefinementRecord } from "../refine/report.ts";
import type { MethodFigures } from "../methods/method.ts";
import { type ModuleFigures, type Quality, qualityOf } from "./figures.ts";

/** Everything that a finished merge knows about itself; the three reports are made from it. */
export interface MergeRecord {
  readonly recipe: Recipe;
  readonly rank: number;
  readonly baseModelName: string | undefined;
  /** Hashes of every input file, by adapter. */
  readonly inputs: readonly InputRecord[];
  readonly versions: Readonly<Record<string, string>>;
  readonly device: DeviceInfo;
  readonly seconds: Readonly<Record<string, number>>;
  readonly quality: Quality;
  readonly modules: readonly ModuleFigures[];
  /** A whole-model method's own figures. */
  readonly method: MethodFigures;
  readonly warnings: readonly Warning[];
  /** What refining the merge did, where the recipe asks for it. */
  readonly refinement?: RefinementRecord | undefined;
  /** Where the merged adapter loads. */
  readonly serving: ServingReport;
  /** ISO 8601. */
  readonly created: string;
}

/** One input and its files. */
export interface InputRecord {
  readonly name: string;
  readonly path: string;
  readonly files: readonly { readonly path: string; readonly sha256: string }[];
}

/** The recipe in its own words, with every path relative to the merged folder's parent so that it can be run again there. */
export function recipeInFile(recipe: Recipe, directory: string): Record<string, unknown> {
  const local = (path: string) => isAbsolute(path) ? relative(directory, path) || "." : path;
  return {
    method: recipe.method,
    ...(recipe.baseModel === undefined ? {} : { base_model: local(recipe.baseModel) }),
    adapters: recipe.adapters.map(({ path, calibration, capture, ...rest }) => ({
      path: local(path),
      ...rest,
      ...(calibration === undefined ? {} : { calibration: local(calibration) }),
      ...(capture === undefined ? {} : { capture: local(capture) }),
    })),
    parameters: recipe.parameters,
    ...(recipe.refine === undefined ? {} : { refine: recipe.refine }),
    include: recipe.include,
    exclude: recipe.exclude,
    output: { ...recipe.output, path: local(recipe.output.path) },
    memory: memoryInRecipe(recipe.memory),
    seed: recipe.seed,
    device: recipe.device,
  };
}

/** Quality of one module in the shape of the whole's. */
export function moduleQuality(module: ModuleFigures, recipe: Recipe): Quality {
  return qualityOf([module.deltas], recipe.adapters.map(({ name }) => name));
}

/** The text of `loom.json`. */
export function recordText(record: MergeRecord, directory: string): string {
  const { recipe, modules, device, ...rest } = record;
  return JSON.stringify(
    {
      schema: 1,
      recipe: recipeInFile(recipe, directory),
      rank: rest.rank,
      base_model_name_or_path: rest.baseModelName ?? null,
      inputs: rest.inputs,
      versions: rest.versions,
      device,
      created: rest.created,
      seconds: rest.seconds,
      quality: rest.quality,
      warnings: rest.warnings,
      serving: rest.serving,
      method: rest.method,
      ...(rest.refinement ? { refinement: rest.refinement } : {}),
      modules: modules.map((module) => ({
        name: module.name,
        shape: [module.outFeatures, module.inFeatures],
        pooled_rank: module.pooledRank,
        rank: module.rank,
        seconds: module.seconds,
        ...moduleQuality(module, recipe),
        ...module.method,
      })),
    },
    null,
    2,
  ) + "\n";
}
