import { canonicalPath } from "../../names/canonical.ts";
import type { Architecture } from "./architectures.ts";

const GLOBAL_MODULES: Readonly<Record<string, string>> = { embed_tokens: "token_embd", lm_head: "output" };

/** llama.cpp's name of a module, without `.weight`; undefined where it has none. */
export function ggufName(module: string, { modules }: Architecture): string | undefined {
  const path = canonicalPath(module);
  const inLayer = /^layers\.(\d+)\.(.+)$/.exec(path);
  if (!inLayer) return Object.hasOwn(GLOBAL_MODULES, path) ? GLOBAL_MODULES[path] : undefined;
  const [, layer, part] = inLayer as unknown as [string, string, string];
  return Object.hasOwn(modules, part) ? `blk.${layer}.${modules[part]}` : undefined;
}

/** The module of llama.cpp's name, as Hugging Face calls it. */
export function moduleName(name: string, { modules }: Architecture): string | undefined {
  if (name === "token_embd") return "model.embed_tokens";
  if (name === "output") return "lm_head";
  const inLayer = /^blk\.(\d+)\.([a-z_]+)$/.exec(name);
  const part = inLayer && Object.keys(modules).find((key) => modules[key] === inLayer[2]);
  return part ? `model.layers.${inLayer[1]}.${part}` : undefined;
}
