import type { Adapter, LoraModule, Warning } from "../../adapter.ts";
import { FormatError } from "../../errors.ts";
import type { StoredTensor } from "../../tensors/tensor_file.ts";
import { dropAdvice, DropList } from "../drop.ts";
import { fileAdapter } from "../factors/adapter.ts";
import { checkPair, incompletePair } from "../factors/pair.ts";
import { noModules } from "../factors/read.ts";
import type { Layout, OpenOptions } from "../layout.ts";
import type { AdapterSource } from "../source.ts";
import { nameByPosition } from "./positions.ts";

const KEY = /^((?:unet|text_encoder):\d+):(up|down)$/;
/** A learned token, such as `<s1>`. */
const TOKEN = /^<.+>$/;

/** cloneofsimo/lora: keys by the position of a module in its model, `unet:9:down`. Read only. */
export const cloneofsimoLayout: Layout = {
  id: "cloneofsimo",
  title: "cloneofsimo",
  container: "safetensors",
  weightFiles: [],
  ownsKey: (key) => KEY.test(key),
  read: readCloneofsimo,
};

/** Pairs by position: `unet:9`. */
type Pairs = Map<string, { up?: StoredTensor; down?: StoredTensor }>;

// Async, so that a refusal rejects like every other failure of opening.
// deno-lint-ignore require-await
async function readCloneofsimo(source: AdapterSource, options: OpenOptions): Promise<Adapter> {
  const { weights } = source;
  const { pairs, warnings } = collect(source, new DropList(options.drop));
  const modules = new Map<string, LoraModule>();
  for (const position of [...pairs.keys()].sort(byPosition)) {
    const { up, down } = pairs.get(position)!;
    const where = `${weights.path} ${position}`;
    if (!down) throw incompletePair("up", "down", where);
    if (!up) throw incompletePair("down", "up", where);
    const shape = checkPair(down, up, where);
    checkAnnouncedRank(weights.metadata[`${position}:rank`], shape.rank, where);
    modules.set(position, { name: position, ...shape, scale: 1, alpha: shape.rank, a: down, b: up });
  }
  if (modules.size === 0) throw noModules(weights.path);
  const named = nameByPosition(modules);
  return fileAdapter(source, "cloneofsimo", named ?? modules, [
    ...warnings,
    ...(named ? [] : [positional(weights.path)]),
  ]);
}

function collect({ weights }: AdapterSource, drop: DropList): { pairs: Pairs; warnings: Warning[] } {
  const pairs: Pairs = new Map();
  const warnings: Warning[] = [];
  for (const [name, tensor] of weights.tensors) {
    const match = KEY.exec(name);
    if (match) {
      const [, position, side] = match as unknown as [string, string, "up" | "down"];
      pairs.set(position, { ...pairs.get(position), [side]: tensor });
    } else if (TOKEN.test(name) && drop.includes(name, "tokens")) {
      const message = `${name} is dropped: a learned token, which stands beside the LoRA`;
      warnings.push({ code: "dropped", message, where: `${weights.path} ${name}` });
    } else throw foreign(name, weights.path);
  }
  return { pairs, warnings };
}

function foreign(name: string, path: string): FormatError {
  const isToken = TOKEN.test(name);
  return new FormatError(
    isToken ? "unsupported_tensor" : "foreign_key",
    isToken
      ? `${name} is a learned token, which stands beside the LoRA and cannot be merged`
      : `the key ${JSON.stringify(name)} is none of cloneofsimo's`,
    isToken
      ? `Accept the loss with ${dropAdvice("tokens")}, or leave the adapter out.`
      : "Check where the file comes from.",
    `${path} ${name}`,
  );
}

function checkAnnouncedRank(announced: string | undefined, rank: number, where: string): void {
  if (announced === undefined || Number(announced) === rank) return;
  throw new FormatError(
    "rank_mismatch",
    `the tensors have rank ${rank}, the metadata says ${JSON.stringify(announced)}`,
    "The file is damaged: fetch it again from its source.",
    where,
  );
}

function positional(path: string): Warning {
  return {
    code: "positional_names",
    message:
      "modules are known by position only: merge this file with files of the same model and layout only",
    where: path,
  };
}

/** By component, then by number: `unet:9` before `unet:10`. */
function byPosition(left: string, right: string): number {
  const [componentL, numberL] = left.split(":") as [string, string];
  const [componentR, numberR] = right.split(":") as [string, string];
  if (componentL !== componentR) return componentL < componentR ? -1 : 1;
  return Number(numberL) - Number(numberR);
}
