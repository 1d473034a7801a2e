import { type Adapter, splitComponent, type Warning } from "@lora-loom/formats";
import { MergeError } from "../errors.ts";
import type { Recipe } from "../recipe/recipe.ts";

/** An adapter under the name that the recipe gives it. */
interface Named {
  readonly name: string;
  readonly adapter: Adapter;
}

/**
 * Refuses adapters that cannot be of one base model: trained for different tasks, or without a module in common where
 * something else says so too. Adapters of one base that adapt different modules of it on purpose, such as attention and
 * MLP, are warned of.
 *
 * @param adapters under aligned names, in the recipe's order
 * @throws {MergeError} `task_types_differ`, `bases_differ`
 */
export function checkOneBase(adapters: readonly Adapter[], recipe: Recipe, warnings: Warning[]): void {
  const named = adapters.map((adapter, index): Named => ({ name: recipe.adapters[index]!.name, adapter }));
  checkTaskTypes(named);
  for (const one of named) {
    const others = named.filter((other) => other !== one);
    if (others.length === 0 || others.some((other) => shareModules(one.adapter, other.adapter))) continue;
    for (const other of others) refuseOtherBase(one, other);
    const message = `${one.name} has no module in common with the other adapters; nothing of it is combined`;
    warnings.push({ code: "no_module_in_common", message, where: one.adapter.path });
  }
}

function checkTaskTypes(named: readonly Named[]): void {
  const stated = named.filter(({ adapter }) => adapter.taskType !== undefined);
  const other = stated.find(({ adapter }) => adapter.taskType !== stated[0]!.adapter.taskType);
  if (!other) return;
  const describe = ({ name, adapter }: Named) => `${name} is for ${adapter.taskType}`;
  throw new MergeError(
    "task_types_differ",
    `the adapters are for different tasks, one was expected: ${describe(stated[0]!)}, ${describe(other)}`,
    "merge adapters of one base model; if they are, write the same task_type into each adapter_config.json",
    other.adapter.path,
  );
}

function shareModules(one: Adapter, other: Adapter): boolean {
  return [...one.modules.keys()].some((name) => other.modules.has(name));
}

function refuseOtherBase(one: Named, other: Named): void {
  const difference = differenceOf(one, other);
  if (difference === undefined) return;
  throw new MergeError(
    "bases_differ",
    `${one.name} and ${other.name} have no module in common, and ${difference}: adapters of one base model were expected`,
    "merge adapters of one base model; if they are, write the same base_model_name_or_path into each adapter_config.json",
    one.adapter.path,
  );
}

/** What says that two adapters without a module in common are of different bases; undefined where nothing does. */
function differenceOf(one: Named, other: Named): string | undefined {
  const [left, right] = [one.adapter, other.adapter];
  if (left.baseModel !== undefined && right.baseModel !== undefined) {
    if (left.baseModel === right.baseModel) return undefined;
    return `their base models are ${left.baseModel} and ${right.baseModel}`;
  }
  // Parts of one image model have names and widths of their own.
  if (hasComponents(left) || hasComponents(right)) return undefined;
  const layers = [left, right].map(layerPaths);
  if (layers.every(({ size }) => size > 0) && partsOf(layers[0]!).isDisjointFrom(partsOf(layers[1]!))) {
    return `their layers are called ${layers.map((paths) => [...paths].join(", ")).join(" and ")}`;
  }
  const widths = [left, right].map(widthsOf);
  if (!widths[0]!.isDisjointFrom(widths[1]!)) return undefined;
  return `no width either (${widths.map((sizes) => [...sizes].join(", ")).join(" and ")})`;
}

function hasComponents({ modules }: Adapter): boolean {
  return [...modules.keys()].some((name) => splitComponent(name).component !== undefined);
}

/** What stands before the layers' numbers, such as `model.layers`. */
function layerPaths({ modules }: Adapter): Set<string> {
  return new Set([...modules.keys()].flatMap((name) => /^(.+?)\.\d+\./.exec(name)?.[1] ?? []));
}

/** The words of paths: encoder and decoder of one model share some, such as `block`. */
function partsOf(paths: ReadonlySet<string>): Set<string> {
  return new Set([...paths].flatMap((path) => path.split(".")));
}

function widthsOf({ modules }: Adapter): Set<number> {
  return new Set([...modules.values()].flatMap(({ inFeatures, outFeatures }) => [inFeatures, outFeatures]));
}
