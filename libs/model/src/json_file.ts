import { readFile } from "node:fs/promises";
import { ModelError } from "./errors.ts";

/** Reads a text file, with an error that names it. */
export async function readTextFile(path: string, fix: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new ModelError("missing_file", `${path} could not be read: ${(error as Error).message}`, fix, path);
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
