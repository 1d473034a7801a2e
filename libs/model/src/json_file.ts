import { readFile } from "node:fs/promises";
import { ModelError } from "./errors.ts";

/**
 * Reads a UTF-8 text file; a byte order mark is left out.
 *
 * @throws {ModelError} `missing_file`, `not_text`
 */
export async function readTextFile(path: string, fix: string): Promise<string> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    throw new ModelError("missing_file", `${path} could not be read: ${(error as Error).message}`, fix, path);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new ModelError("not_text", `${path} is not UTF-8 text`, `save it as UTF-8, or ${fix}`, path);
  }
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
