import type { Adapter, Warning } from "../../adapter.ts";
import { PathDecoder } from "../../names/underscores.ts";
import { fileAdapter } from "../factors/adapter.ts";
import { readFactorFile } from "../factors/read.ts";
import { readTensorName } from "../factors/suffixes.ts";
import type { OpenOptions } from "../layout.ts";
import type { AdapterSource } from "../source.ts";
import { MODULE_NAMES, readNameTable } from "./name_table.ts";
import { componentOf, splitKohyaPath } from "./prefixes.ts";

/** Reads a kohya file. A path whose dots are not known keeps its underscores, and the module says so. */
export async function readKohya(source: AdapterSource, options: OpenOptions): Promise<Adapter> {
  const { weights } = source;
  const fronts = [...weights.tensors.keys()].flatMap((key) => readTensorName(key)?.module ?? []);
  const paths = fronts.flatMap((front) => splitKohyaPath(front)?.path ?? []);
  const table = readNameTable(weights.metadata[MODULE_NAMES]);
  const decoder = new PathDecoder(paths, [...baseNames(options), ...table]);
  const isFlux = paths.some((path) => /^(double_blocks|single_blocks|single_transformer_blocks)_/.test(path));
  const flattened = new Set<string>();
  const { modules, warnings } = await readFactorFile(weights, "kohya", (front) => {
    const split = splitKohyaPath(front);
    if (!split) return undefined;
    const decoded = decoder.decode(split.path);
    if (decoded === undefined) flattened.add(front);
    const path = decoded ?? split.path;
    const component = componentOf(split.prefix, path, isFlux);
    const name = component ? `${component}.${path}` : path;
    return decoded === undefined ? { name, isFlattened: true } : { name };
  }, options);
  return fileAdapter(source, "kohya", modules, [...warnings, ...warnOfFlattened(flattened, weights.path)], {
    baseModel: weights.metadata["ss_sd_model_name"] || undefined,
  });
}

/** The base model's names, with and without the component in front. */
function baseNames({ base }: OpenOptions): string[] {
  return (base?.moduleNames ?? []).flatMap((name) => {
    const dot = name.indexOf(".");
    return dot < 0 ? [name] : [name, name.slice(dot + 1)];
  });
}

function warnOfFlattened(flattened: ReadonlySet<string>, path: string): Warning[] {
  const [first] = flattened;
  if (first === undefined) return [];
  return [{
    code: "names_flattened",
    message:
      `the paths of ${flattened.size} modules are not understood, first ${first}: they can be merged with and ` +
      "written to kohya files; other layouts need the base model's names (--base DIR)",
    where: path,
  }];
}
