import type { Adapter, LoraModule, Warning } from "../adapter.ts";
import { FormatError } from "../errors.ts";

/**
 * An adapter with other modules; it closes the original's files.
 *
 * @throws {FormatError} `duplicate_module` where two modules got one name
 */
export function withModules(
  adapter: Adapter,
  modules: Iterable<LoraModule>,
  warnings: readonly Warning[] = [],
): Adapter {
  const sorted = [...modules].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  sorted.forEach((module, index) => {
    if (sorted[index + 1]?.name === module.name) throw duplicate(module, adapter);
  });
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

function duplicate({ name }: LoraModule, { path }: Adapter): FormatError {
  return new FormatError(
    "duplicate_module",
    `two modules of the adapter are ${name} under different names`,
    "Store each adapter in a file of its own.",
    `${path} ${name}`,
  );
}
