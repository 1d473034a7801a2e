import type { Adapter, LoraModule, Warning } from "../../adapter.ts";
import { toPlain } from "../../json/parse.ts";
import type { AdapterSource } from "../source.ts";

/** What some layouts know of an adapter beyond its modules. */
export interface AdapterFacts {
  readonly baseModel?: string | undefined;
  readonly taskType?: string | undefined;
  readonly fanInFanOut?: boolean | undefined;
}

/** An open adapter that owns its source's weights. */
export function fileAdapter(
  source: AdapterSource,
  format: string,
  modules: ReadonlyMap<string, LoraModule>,
  warnings: readonly Warning[],
  { baseModel, taskType, fanInFanOut = false }: AdapterFacts = {},
): Adapter {
  const { name, path, weights } = source;
  const close = () => weights.close();
  return {
    name,
    path,
    format,
    modules,
    baseModel,
    taskType,
    fanInFanOut,
    config: source.config && toPlain(source.config) as Record<string, unknown>,
    metadata: weights.metadata,
    warnings,
    files: source.config ? [source.configPath, ...weights.files] : weights.files,
    close,
    [Symbol.dispose]: close,
  };
}
