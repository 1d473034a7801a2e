import { FormatError } from "../errors.ts";
import { RandomAccessFile } from "../io/random_access_file.ts";
import { JsonError, type JsonObject, parseJson } from "./parse.ts";

/** Configurations and indices are small; a larger file is not one. */
const MAX_BYTES = 64 << 20;

/**
 * Reads a file that must hold one JSON object.
 *
 * @throws {FormatError} `json_too_large`, `json_invalid`, `duplicate_key`, `unsafe_integer`, or an error of the file
 */
export async function readJsonFile(path: string): Promise<JsonObject> {
  const value = parse(await readText(path), path);
  if (value instanceof Map) return value;
  throw new FormatError(
    "json_invalid",
    `${path} holds no JSON object`,
    "Restore the file from its source.",
    path,
  );
}

function parse(text: string, path: string) {
  try {
    return parseJson(text);
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    const code = error.problem === "duplicate_key" || error.problem === "unsafe_integer"
      ? error.problem
      : "json_invalid";
    const where = [path, ...error.path].join(" ");
    throw new FormatError(code, `${path} is not valid JSON: ${error.message}`, "Correct the file.", where);
  }
}

async function readText(path: string): Promise<string> {
  const file = await RandomAccessFile.open(path, "read");
  try {
    if (file.size > MAX_BYTES) {
      throw new FormatError(
        "json_too_large",
        `${path} has ${file.size} bytes, at most ${MAX_BYTES} were expected`,
        "Check that the path names the right file.",
        path,
      );
    }
    return decodeText(await file.read(0, file.size), path);
  } finally {
    file.close();
  }
}

function decodeText(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new FormatError("json_invalid", `${path} is not UTF-8 text`, "Save the file as UTF-8.", path);
  }
}
