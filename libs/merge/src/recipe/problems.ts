/** What is said of a recipe whose keys or values are wrong. */
import type * as v from "valibot";
import { MergeError } from "../errors.ts";
import { keyName, type KeyPath, type RecipeDocument } from "./document.ts";
import { didYouMean, nearest } from "./nearest.ts";
import { knownKeys } from "./schema.ts";

/** A value in an error's message. */
export function valueText(value: unknown): string {
  if (value === undefined) return "nothing";
  // JSON has neither NaN nor infinities.
  return typeof value === "number" ? String(value) : JSON.stringify(value) ?? String(value);
}

/** The error for a key that its map does not know. */
export function unknownKey(path: KeyPath, known: readonly string[], document: RecipeDocument): MergeError {
  const key = String(path.at(-1));
  const parent = path.length > 1 ? ` in ${keyName(path.slice(0, -1))}` : "";
  const candidate = nearest(key, known);
  return new MergeError(
    "unknown_key",
    `unknown key ${JSON.stringify(key)}${parent}; ${didYouMean(key, known)}`,
    candidate ? `write ${candidate} instead of ${key}, or remove it` : `remove ${key}`,
    document.locate(path),
  );
}

/** The value at a path; undefined where there is none. */
export function valueAt(root: unknown, path: KeyPath): unknown {
  return path.reduce<unknown>(
    (value, key) => (value as Record<string | number, unknown> | null | undefined)?.[key],
    root,
  );
}

/** The error for what checking a recipe by its schema found. */
export function issueError(issue: v.BaseIssue<unknown>, document: RecipeDocument): MergeError {
  const path = (issue.path ?? []).map(({ key }) => key as string | number);
  const found = valueAt(document.value, path);
  if (issue.type === "strict_object" && issue.expected === "never") {
    return unknownKey(path, knownKeys(path.slice(0, -1)), document);
  }
  if (found === undefined && path.length > 0) {
    const parent = path.slice(0, -1);
    return new MergeError(
      "missing_key",
      `${keyName(path)} is missing`,
      `add ${String(path.at(-1))}: … to ${keyName(parent)}`,
      document.locate(parent),
    );
  }
  return new MergeError(
    "invalid_value",
    `${issue.message}, found ${valueText(found)}`,
    `correct ${keyName(path)}`,
    document.locate(path),
  );
}
