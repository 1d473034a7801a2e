import type { LoraModule, ModuleKeys, Warning } from "../../adapter.ts";
import { FormatError } from "../../errors.ts";
import type { StoredTensor, TensorFile } from "../../tensors/tensor_file.ts";
import { dropAdvice, DropList } from "../drop.ts";
import type { OpenOptions } from "../layout.ts";
import { readAlpha } from "./alpha.ts";
import { type ExpandedFactors, expandLoha, expandLokr, refuseUnknownKernel } from "./expand.ts";
import { foldMid } from "./mid.ts";
import { checkNameLength } from "./name_length.ts";
import { checkPair, incompletePair } from "./pair.ts";
import { readTensorName, type TensorName, type VariantKind } from "./suffixes.ts";
import { refuseVariant, VARIANTS } from "./variants.ts";

/** Where the module that a layout calls `path` lies in the base model. */
export interface ModulePath {
  readonly name: string;
  readonly isFlattened?: true | undefined;
}

/** How a layout turns the front part of a tensor's name into a module; undefined where it is not of the layout. */
export type ReadPath = (path: string) => ModulePath | undefined;

/** What a file says about one module. */
interface ModuleTensors {
  readonly name: string;
  readonly isFlattened: true | undefined;
  /** By ending, such as `hada_w1_a`. */
  readonly variants: Map<string, StoredTensor>;
  a?: StoredTensor;
  b?: StoredTensor;
  mid?: StoredTensor;
  alpha?: StoredTensor;
  kind?: VariantKind;
}

/** Scales that follow from the metadata where a module has no tensor with its alpha. */
export type ScaleOf = (module: string, rank: number) => number | undefined;

/**
 * Reads a file whose modules are pairs of factors with an optional scalar alpha: the kohya, diffusers and original
 * layouts. A module without alpha has alpha = r.
 *
 * @param title the layout's, for messages
 * @throws {FormatError} `foreign_key`, `duplicate_module`, `incomplete_pair`, `alpha_zero`, `unsupported_variant`,
 * `shape_mismatch`, `invalid_rank`, `grouped_conv`, `unsupported_dtype`, `no_modules`, `not_finite`
 */
export async function readFactorFile(
  weights: TensorFile,
  title: string,
  readPath: ReadPath,
  options: OpenOptions,
  scaleOf: ScaleOf = () => undefined,
): Promise<{ modules: Map<string, LoraModule>; warnings: Warning[] }> {
  const warnings: Warning[] = [];
  const drop = new DropList(options.drop);
  const found = collect(weights, title, readPath, drop, warnings);
  const modules = new Map<string, LoraModule>();
  for (const name of [...found.keys()].sort()) {
    const module = await toModule(found.get(name)!, weights.path, options, scaleOf);
    if (module) modules.set(name, module);
  }
  if (modules.size === 0) throw noModules(weights.path);
  return { modules, warnings };
}

function collect(
  weights: TensorFile,
  title: string,
  readPath: ReadPath,
  drop: DropList,
  warnings: Warning[],
): Map<string, ModuleTensors> {
  const modules = new Map<string, ModuleTensors>();
  for (const tensor of weights.tensors.values()) {
    checkNameLength(tensor.name, weights.path);
    const name = readTensorName(tensor.name);
    const path = name && readPath(name.module);
    if (!path && drop.includes(tensor.name)) {
      warnings.push(dropped(tensor.name, "a tensor of no known kind", weights.path));
    } else if (!path) throw foreignKey(tensor.name, title, weights.path);
    else if (drop.includes(path.name, name.module, tensor.name) || isDroppedKind(name, drop)) {
      warnings.push(dropped(tensor.name, describeRole(name), weights.path));
    } else add(modules, path, name, tensor, weights.path);
  }
  return modules;
}

function isDroppedKind({ role, ending }: TensorName, drop: DropList): boolean {
  return role in VARIANTS && drop.includes(role, ending);
}

function describeRole({ role }: TensorName): string {
  return role in VARIANTS ? VARIANTS[role as VariantKind].what : "its module was named";
}

function dropped(name: string, what: string, path: string): Warning {
  return { code: "dropped", message: `${name} is dropped: ${what}`, where: `${path} ${name}` };
}

function add(
  modules: Map<string, ModuleTensors>,
  { name, isFlattened }: ModulePath,
  { role, ending }: TensorName,
  tensor: StoredTensor,
  path: string,
): void {
  const module: ModuleTensors = modules.get(name) ?? { name, isFlattened, variants: new Map() };
  modules.set(name, module);
  if (role !== "a" && role !== "b" && role !== "mid" && role !== "alpha") {
    // IA3's other tensor is called `weight`, as any full tensor is.
    module.kind = role === "ia3" ? role : module.kind ?? role;
    module.variants.set(ending, tensor);
    return;
  }
  const other = module[role];
  if (other) {
    throw new FormatError(
      "duplicate_module",
      `${other.name} and ${tensor.name} are the same part of ${name}`,
      "Store each adapter in a file of its own.",
      `${path} ${name}`,
    );
  }
  module[role] = tensor;
}

async function toModule(
  tensors: ModuleTensors,
  path: string,
  options: OpenOptions,
  scaleOf: ScaleOf,
): Promise<LoraModule | undefined> {
  const { name, isFlattened, kind } = tensors;
  const where = `${path} ${name}`;
  if (!kind && !tensors.a && !tensors.b && !tensors.mid) {
    // An alpha alone is what is left of a module whose other tensors were dropped.
    if (options.drop?.length) return undefined;
    throw incompletePair(tensors.alpha!.name, "factors", where);
  }
  if (kind !== undefined && !(options.expand && (kind === "loha" || kind === "lokr"))) {
    throw refuseVariant(kind, tensors.variants.values().next().value!.name, name, path);
  }
  const expanded = kind && expand(kind, tensors, where);
  const factors = expanded ?? plainFactors(tensors, where);
  const shape = checkPair(factors.a, factors.b, where);
  // LyCORIS ignores alpha where LoKr has no factored part, and so no r that it could be divided by.
  const divisor = expanded ? expanded.alphaRank : shape.rank;
  const alpha = tensors.alpha && await readAlpha(tensors.alpha, `${path} ${tensors.alpha.name}`);
  const stored = alpha !== undefined && divisor !== undefined ? alpha / divisor : scaleOf(name, shape.rank);
  const scale = stored ?? 1;
  return {
    name,
    ...shape,
    ...factors,
    alpha: scale * shape.rank,
    scale,
    keys: expanded ? undefined : keysOf(tensors),
    isFlattened,
  };
}

/** A variant's plain factors; only kinds that can be expanded come here. */
function expand(kind: VariantKind, { name, variants }: ModuleTensors, where: string): ExpandedFactors {
  refuseUnknownKernel(name, variants.values().next().value!.name, where);
  return kind === "loha" ? expandLoha(variants, where) : expandLokr(variants, where);
}

function plainFactors({ a, b, mid }: ModuleTensors, where: string): { a: StoredTensor; b: StoredTensor } {
  if (!a) throw incompletePair(b ? b.name : mid!.name, "A (lora_down)", where);
  if (!b) throw incompletePair(a.name, "B (lora_up)", where);
  return mid ? { a: foldMid(a, mid, where), b } : { a, b };
}

function keysOf({ a, b, alpha }: ModuleTensors): ModuleKeys {
  return { a: a!.name, b: b!.name, alpha: alpha?.name };
}

function foreignKey(name: string, title: string, path: string): FormatError {
  return new FormatError(
    "foreign_key",
    `the key ${JSON.stringify(name)} is none of ${title}`,
    `Check where the file comes from, or leave the tensor out with ${dropAdvice(name)}.`,
    `${path} ${name}`,
  );
}

/** The error of a file in which no module is left. */
export function noModules(path: string): FormatError {
  return new FormatError(
    "no_modules",
    `${path} holds no LoRA factors`,
    "Check that the file is an adapter.",
    path,
  );
}
