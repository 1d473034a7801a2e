import type { Adapter, LoraModule } from "../adapter.ts";
import { FormatError } from "../errors.ts";
import { splitComponent } from "../names/components.ts";
import {
  type Family,
  inDiffusersNames,
  type MatchedRule,
  ruleForDiffusers,
  ruleForOriginal,
  schemeOf,
} from "../names/schemes.ts";
import { reorderedRows } from "../tensors/derived_tensor.ts";
import { fuseModules, type FusePart } from "./fuse_modules.ts";
import { renamed, withModules } from "./renamed.ts";
import { splitModule } from "./split_module.ts";
import { dropAdvice } from "../layouts/drop.ts";

/** Flux: width of a single block's feed-forward, in widths of the model. */
const FLUX_MLP_RATIO = 4;
/** First parts of original names that diffusers always calls something else. */
const ORIGINAL_ROOT = /^(double_blocks|single_blocks|joint_blocks|input_blocks|middle_block|output_blocks)\b/;

/**
 * The adapter in diffusers' names: fused projections are split, U-Nets numbered as diffusers numbers them. An adapter
 * that has these names already is returned as it is.
 *
 * @throws {FormatError} `no_diffusers_name` for a module in original names that no rule knows, `cannot_split`
 */
export async function inDiffusersScheme(adapter: Adapter): Promise<Adapter> {
  const scheme = schemeOf(adapter.modules.keys());
  const modules: LoraModule[] = [];
  let isChanged = false;
  for (const module of adapter.modules.values()) {
    const moved = await toDiffusers(module, scheme?.names === "original" ? scheme.family : undefined);
    isChanged ||= moved.length !== 1 || moved[0] !== module;
    modules.push(...moved);
  }
  return isChanged ? withModules(adapter, modules) : adapter;
}

async function toDiffusers(module: LoraModule, family: Family | undefined): Promise<LoraModule[]> {
  const unet = inDiffusersNames(module.name);
  if (unet !== undefined) return [renamed(module, unet)];
  const { component, path } = splitComponent(module.name);
  const matched = family && ruleForOriginal(family, path, isShort(module));
  if (!matched) {
    if (ORIGINAL_ROOT.test(path)) throw noName(module, "diffusers");
    return [module];
  }
  const names = matched.diffusers.map((name) => `${component ?? "transformer"}.${name}`);
  if (names.length === 1) return [swapIfNeeded(renamed(module, names[0]!), matched)];
  const rows = partRows(matched, module.inFeatures, module.outFeatures);
  return await splitModule(module, names.map((name, index) => ({ name, rows: rows[index]! })));
}

/**
 * The adapter in the names of the model's own code, as kohya's scripts and ComfyUI know Flux, SD3 and Wan: split
 * projections are fused. An adapter that has these names already, or whose family has one kind only, is returned as is.
 *
 * @throws {FormatError} `no_original_name`, `cannot_fuse`
 */
export async function inOriginalScheme(adapter: Adapter): Promise<Adapter> {
  const scheme = schemeOf(adapter.modules.keys());
  if (scheme?.names !== "diffusers") return adapter;
  const modules: LoraModule[] = [];
  const groups = new Map<string, { matched: MatchedRule; parts: Map<string, LoraModule> }>();
  for (const module of adapter.modules.values()) {
    const { component, path } = splitComponent(module.name);
    const isText = component?.startsWith("text_encoder") ?? false;
    const matched = isText ? undefined : ruleForDiffusers(scheme.family, path, isShort(module));
    if (!matched && !isText) throw noName(module, "original");
    if (!matched) modules.push(module);
    else if (matched.diffusers.length === 1) {
      const name = `${component ?? "transformer"}.${matched.original}`;
      modules.push(swapIfNeeded(renamed(module, name), matched));
    } else {
      const name = `${component ?? "transformer"}.${matched.original}`;
      const group = groups.get(name) ?? { matched, parts: new Map() };
      group.parts.set(path, module);
      groups.set(name, group);
    }
  }
  for (const [name, { matched, parts }] of groups) {
    modules.push(await fuseModules(name, toParts(matched, parts)));
  }
  return withModules(adapter, modules);
}

function toParts({ diffusers }: MatchedRule, parts: ReadonlyMap<string, LoraModule>): FusePart[] {
  const width = parts.values().next().value!.inFeatures;
  return diffusers.map((path, index) => {
    const module = parts.get(path);
    return { module, rows: module?.outFeatures ?? (index < 3 ? width : FLUX_MLP_RATIO * width) };
  });
}

/** The rows of a fused projection's parts: Q, K and V are as wide as the model, what else there is takes the rest. */
function partRows({ diffusers }: MatchedRule, inFeatures: number, outFeatures: number): number[] {
  return diffusers.map((_, index) => index < 3 ? inFeatures : outFeatures - 3 * inFeatures);
}

/** Diffusers has scale before shift where the original code has shift before scale. */
function swapIfNeeded(module: LoraModule, { swapsHalves }: MatchedRule): LoraModule {
  if (!swapsHalves) return module;
  const half = module.outFeatures / 2;
  return { ...module, b: reorderedRows(module.b, (row) => row < half ? row + half : row - half) };
}

/** Modulations of two chunks have twice as many outputs as inputs. */
function isShort({ inFeatures, outFeatures }: LoraModule): boolean {
  return outFeatures === 2 * inFeatures;
}

function noName(module: LoraModule, scheme: "diffusers" | "original"): FormatError {
  return new FormatError(
    `no_${scheme}_name`,
    `${module.name} has no ${
      scheme === "diffusers" ? "name in diffusers" : "original name"
    } that is known here`,
    `Leave the module out with ${dropAdvice(module.name)}, or choose another layout.`,
    module.name,
  );
}
