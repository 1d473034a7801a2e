import type { Adapter, LoraModule, Warning } from "../adapter.ts";

/** An adapter with other modules; it closes the original's files. */
export function withModules(
  adapter: Adapter,
  modules: Iterable<LoraModule>,
  warnings: readonly Warning[] = [],
): Adapter {
  const sorted = [...modules].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  return {
    ...adapter,
    modules: new Map(sorted.map((module) => [module.name, module])),
    warnings: [...adapter.warnings, ...warnings],
    close: () => adapter.close(),
    [Symbol.dispose]: () => adapter.close(),
  };
}

/** A module under another name; what its tensors were called no longer matters. */
export function renamed(module: LoraModule, name: string): LoraModule {
  return { ...module, name, keys: undefined };
}
