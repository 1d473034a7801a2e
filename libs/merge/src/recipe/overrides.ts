import { parse } from "yaml";
import { MergeError } from "../errors.ts";

/** One `key.path=value` from the command line. */
export interface Override {
  readonly path: readonly (string | number)[];
  readonly value: unknown;
  /** As the user wrote it, for errors. */
  readonly text: string;
}

/**
 * Reads `a.b.0.c=value`. The value is YAML: `8` is a number, `true` a boolean, `[a, b]` a list, everything else a string.
 *
 * @throws {MergeError} `override_syntax`
 */
export function parseOverride(text: string): Override {
  const equals = text.indexOf("=");
  const keys = text.slice(0, Math.max(0, equals)).split(".");
  if (equals < 1 || keys.some((key) => key.trim() === "")) {
    throw new MergeError(
      "override_syntax",
      `cannot read ${JSON.stringify(text)} as key=value`,
      "write it like --set parameters.rank=8 or --set adapters.0.weight=0.5",
      `--set ${text}`,
    );
  }
  const path = keys.map((key) => /^\d+$/.test(key) ? Number(key) : key.trim());
  try {
    return { path, value: parse(text.slice(equals + 1)), text };
  } catch (error) {
    const fix = "quote the value, for example --set 'include=[\"*.q_proj\"]'";
    throw new MergeError(
      "override_syntax",
      `the value is not valid YAML: ${(error as Error).message}`,
      fix,
      `--set ${text}`,
    );
  }
}

type Container = Record<string | number, unknown>;

/**
 * A copy of `root` with one value replaced; maps on the way are made where they lack.
 *
 * @throws {MergeError} `override_target` when the path leads into a plain value or beyond the end of a list
 */
export function applyOverride(root: unknown, override: Override): unknown {
  const copy = structuredClone(root) as Container;
  let container = copy;
  override.path.forEach((key, depth) => {
    checkContainer(container, key, depth, override);
    if (depth === override.path.length - 1) container[key] = override.value;
    else container = (container[key] ??= {}) as Container;
  });
  return copy;
}

function checkContainer(container: unknown, key: string | number, depth: number, override: Override): void {
  const parent = override.path.slice(0, depth).join(".") || "the recipe";
  const where = `--set ${override.text}`;
  if (typeof container !== "object" || container === null) {
    throw new MergeError(
      "override_target",
      `${parent} is a plain value, so it has no ${JSON.stringify(key)}`,
      "set the value itself",
      where,
    );
  }
  if (!Array.isArray(container)) return;
  const isEntry = typeof key === "number" && key < container.length;
  if (!isEntry) {
    const entries = container.length === 0
      ? "it is empty"
      : `it has the entries 0 to ${container.length - 1}`;
    throw new MergeError(
      "override_target",
      `${parent} has no entry ${JSON.stringify(key)}: ${entries}`,
      "count from 0",
      where,
    );
  }
}
