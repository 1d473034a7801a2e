import { JsonError, parseJson } from "../../json/parse.ts";

/** The metadata key under which a kohya file of ours lists paths that its keys do not give away. */
export const MODULE_NAMES = "loom.module_names";

/** The listed paths; none where the text is no list of strings, as in a file that someone else made. */
export function readNameTable(text: string | undefined): string[] {
  if (text === undefined) return [];
  try {
    const value = parseJson(text);
    return Array.isArray(value) ? value.filter((name) => typeof name === "string") : [];
  } catch (error) {
    if (error instanceof JsonError) return [];
    throw error;
  }
}
