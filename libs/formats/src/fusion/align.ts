import type { Adapter, LoraModule } from "../adapter.ts";
import { FormatError } from "../errors.ts";
import { moduleKey } from "../names/canonical.ts";
import { splitComponent } from "../names/components.ts";
import { type Family, ruleForDiffusers, schemeOf } from "../names/schemes.ts";
import { renamed, withModules } from "./renamed.ts";
import { inDiffusersScheme } from "./schemes.ts";
import { splitModule, type SplitPart } from "./split_module.ts";

/** Projections that some versions of a model have in one piece, and the pieces, in the order of their rows. */
const FUSED: readonly (readonly [fused: string, parts: readonly string[]])[] = [
  ["qkv_proj", ["q_proj", "k_proj", "v_proj"]],
  ["gate_up_proj", ["gate_proj", "up_proj"]],
];

/**
 * Adapters of one base model under common names, so that modules which differ in name only merge as one: prefixes that
 * differ between versions of a model, original against diffusers' names, fused against split projections. Where names
 * differ, the first adapter's stand, except that fused projections are split where any adapter has them split. Adapters
 * that agree are returned as they are.
 *
 * @throws {FormatError} `cannot_split`, `no_diffusers_name`, `kernel_mismatch`
 */
export async function alignAdapters(adapters: readonly Adapter[]): Promise<Adapter[]> {
  const inOneScheme = await alignSchemes(adapters);
  const split = await Promise.all(inOneScheme.map((adapter) => splitWhereOthersDo(adapter, inOneScheme)));
  const aligned = alignNames(split);
  checkKernels(aligned);
  return aligned;
}

/** Brings adapters in original names into diffusers' where others of the family are there already. */
function alignSchemes(adapters: readonly Adapter[]): Promise<Adapter[]> {
  return Promise.all(adapters.map((adapter) => {
    const scheme = schemeOf(adapter.modules.keys());
    const isForeign = scheme?.names === "original" &&
      adapters.some((other) => other !== adapter && usesDiffusersNames(other, scheme.family));
    return isForeign ? inDiffusersScheme(adapter) : adapter;
  }));
}

function usesDiffusersNames({ modules }: Adapter, family: Family): boolean {
  return [...modules.keys()].some((name) =>
    ruleForDiffusers(family, splitComponent(name).path, false) !== undefined
  );
}

async function splitWhereOthersDo(adapter: Adapter, all: readonly Adapter[]): Promise<Adapter> {
  const modules: LoraModule[] = [];
  let isChanged = false;
  for (const module of adapter.modules.values()) {
    const parts = partsElsewhere(module, all);
    if (parts) modules.push(...await splitModule(module, parts));
    else modules.push(module);
    isChanged ||= parts !== undefined;
  }
  return isChanged ? withModules(adapter, modules) : adapter;
}

/** The parts of a fused projection as other adapters have them; undefined where none has any. */
function partsElsewhere(module: LoraModule, all: readonly Adapter[]): SplitPart[] | undefined {
  const dot = module.name.lastIndexOf(".");
  const [, endings] = FUSED.find(([fused]) => fused === module.name.slice(dot + 1)) ?? [];
  if (!endings) return undefined;
  const names = endings.map((ending) => `${module.name.slice(0, dot)}.${ending}`);
  const rows = names.map((name) => rowsElsewhere(moduleKey(name), all));
  if (rows.every((count) => count === undefined)) return undefined;
  const counts = completeRows(rows, module);
  return names.map((name, index) => ({ name, rows: counts[index]! }));
}

function rowsElsewhere(key: string, all: readonly Adapter[]): number | undefined {
  for (const { modules } of all) {
    for (const module of modules.values()) if (moduleKey(module.name) === key) return module.outFeatures;
  }
  return undefined;
}

/** Rows of the parts that no adapter has: what is left, in equal shares. K and V are always of one size. */
function completeRows(rows: readonly (number | undefined)[], module: LoraModule): number[] {
  const known = rows.reduce<number>((sum, count) => sum + (count ?? 0), 0);
  const missing = rows.filter((count) => count === undefined).length;
  const [q, k, v] = rows;
  // With Q unknown, V has as many rows as K, or the other way round.
  if (rows.length === 3 && q === undefined && (k ?? v) !== undefined) {
    const keys = (k ?? v)!;
    return [module.outFeatures - 2 * keys, keys, keys];
  }
  const share = missing === 0 ? 0 : (module.outFeatures - known) / missing;
  if (!Number.isInteger(share) || share < 0) {
    throw new FormatError(
      "cannot_split",
      `${module.name} has ${module.outFeatures} rows, which do not fit the parts that other adapters have`,
      "Check that the adapters are of one base model.",
      module.name,
    );
  }
  return rows.map((count) => count ?? share);
}

/** Gives every module the name that the first adapter with an equal key has for it. */
function alignNames(adapters: readonly Adapter[]): Adapter[] {
  const nameOfKey = new Map<string, string>();
  return adapters.map((adapter) => {
    const keys = uniqueKeys(adapter);
    const changes: [from: string, to: string][] = [];
    const modules = [...adapter.modules.values()].map((module) => {
      const key = keys.get(module.name)!;
      const name = nameOfKey.get(key) ?? module.name;
      nameOfKey.set(key, name);
      if (name === module.name) return module;
      changes.push([module.name, name]);
      return renamed(module, name);
    });
    const [first] = changes;
    if (!first) return adapter;
    const message =
      `${changes.length} modules have other names than in the first adapter and are taken for ` +
      `the same: ${first[0]} for ${first[1]}`;
    return withModules(adapter, modules, [{ code: "names_aligned", message, where: adapter.path }]);
  });
}

/** The key of each module; two modules of one adapter never share one, else their names are their keys. */
function uniqueKeys({ modules }: Adapter): Map<string, string> {
  const names = [...modules.keys()];
  const counts = new Map<string, number>();
  for (const name of names) counts.set(moduleKey(name), (counts.get(moduleKey(name)) ?? 0) + 1);
  return new Map(names.map((name) => [name, counts.get(moduleKey(name)) === 1 ? moduleKey(name) : name]));
}

/** A convolution and another of equal size but another kernel would be added entry by entry, which is wrong. */
function checkKernels(adapters: readonly Adapter[]): void {
  const kernels = new Map<string, string>();
  for (const { modules, path } of adapters) {
    for (const { name, form } of modules.values()) {
      // A kernel of ones is a linear module in another shape.
      const kernel = form?.kind === "conv" && form.kernel.some((size) => size > 1)
        ? form.kernel.join("×")
        : form?.kind === "embedding"
        ? "embedding"
        : "1";
      const other = kernels.get(name) ?? kernel;
      if (other !== kernel) throw kernelMismatch(name, other, kernel, path);
      kernels.set(name, other);
    }
  }
}

function kernelMismatch(name: string, one: string, other: string, path: string): FormatError {
  return new FormatError(
    "kernel_mismatch",
    `the adapters disagree on what ${name} is: a kernel of ${one} and one of ${other}`,
    `Merge adapters of one base model, or leave the module out with exclude: [${JSON.stringify(name)}].`,
    `${path} ${name}`,
  );
}
