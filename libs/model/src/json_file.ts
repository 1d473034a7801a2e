import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { ModelError } from "./errors.ts";

/**
 * Reads a UTF-8 text file; a byte order mark is left out.
 *
 * @throws {ModelError} `missing_file`, `not_a_file`, `not_a_directory`, `not_text`
 */
export async function readTextFile(path: string, fix: string): Promise<string> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    throw unreadable(error, path, fix);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new ModelError("not_text", `${path} is not UTF-8 text`, `save it as UTF-8, or ${fix}`, path);
  }
}

function unreadable(error: unknown, path: string, fix: string): ModelError {
  const { code, message } = error as Error & { readonly code?: string };
  if (code === "EISDIR") {
    return new ModelError("not_a_file", `${path} is a folder, a file was expected`, fix, path);
  }
  if (code === "ENOTDIR") {
    const file = existingPart(path);
    return new ModelError("not_a_directory", `${file} is a file, a folder was expected`, fix, file);
  }
  return new ModelError("missing_file", `${path} could not be read: ${message}`, fix, path);
}

/** The longest beginning of a path that exists. */
function existingPart(path: string): string {
  const parent = dirname(path);
  return existsSync(path) || parent === path ? path : existingPart(parent);
}

/** Reads and parses a JSON file of a model folder. */
export async function readJsonFile(path: string): Promise<unknown> {
  const text = await readTextFile(path, "point to a Hugging Face model folder that holds it");
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ModelError(
      "invalid_json",
      `${path} is not JSON: ${(error as Error).message}`,
      "restore the file",
      path,
    );
  }
}
