import { isMap, isNode, LineCounter, type Node, parseDocument } from "yaml";
import { MergeError } from "../errors.ts";

/** Keys and indices from the root of a recipe to one value. */
export type KeyPath = readonly (string | number)[];

/** A parsed recipe file that still knows where everything stood. */
export interface RecipeDocument {
  /** What the text says, as plain JavaScript values. */
  readonly value: unknown;
  /** For errors: `recipe.yaml:12:3 (parameters.rank)`. */
  locate(path: KeyPath): string;
}

/** `adapters.0.weight`, or `the recipe` for the root. */
export function keyName(path: KeyPath): string {
  return path.length > 0 ? path.join(".") : "the recipe";
}

/**
 * Parses a recipe in YAML or JSON (which YAML contains).
 *
 * @param text the file's content
 * @param name how errors call the file
 * @throws {MergeError} `recipe_syntax` with line and column
 */
export function parseRecipeText(text: string, name: string): RecipeDocument {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const problem = document.errors[0] ?? document.warnings[0];
  if (problem) {
    const { line, col } = lines.linePos(problem.pos[0]);
    const fix =
      "correct that line; strings with special characters need quotes, and indentation needs spaces";
    throw new MergeError(
      "recipe_syntax",
      `not valid YAML: ${problem.message}`,
      fix,
      `${name}:${line}:${col}`,
    );
  }

  function position(path: KeyPath): string {
    for (let length = path.length; length > 0; length--) {
      const offset = offsetOf(document.getIn(path.slice(0, length - 1), true), path[length - 1]!);
      if (offset === undefined) continue;
      const { line, col } = lines.linePos(offset);
      return `:${line}:${col}`;
    }
    return "";
  }

  return {
    value: toPlain(document, name),
    locate: (path) => `${name}${position(path)} (${keyName(path)})`,
  };
}

function toPlain(document: ReturnType<typeof parseDocument>, name: string): unknown {
  try {
    return document.toJS();
  } catch (error) {
    // The only way to get here is an alias without its anchor, or a bomb of aliases.
    throw new MergeError(
      "recipe_syntax",
      `not valid YAML: ${(error as Error).message}`,
      "write the value out instead of the alias",
      name,
    );
  }
}

/** Where a key stands in its map, or an entry in its list. */
function offsetOf(parent: unknown, key: string | number): number | undefined {
  if (isMap(parent)) {
    const pair = parent.items.find(({ key: node }) => (isNode(node) ? node.toJSON() : node) === key);
    return startOf(pair?.key) ?? startOf(pair?.value);
  }
  const items = (parent as { items?: unknown[] } | undefined)?.items;
  return startOf(items?.[Number(key)]);
}

function startOf(node: unknown): number | undefined {
  return isNode(node) ? (node as Node).range?.[0] : undefined;
}
