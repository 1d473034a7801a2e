import { MergeError } from "@lora-loom/merge";

const ROW_EXPECTED = 'write one JSON object a line: {"prompt": "…"} or {"text": "…"}';

function invalidRow(line: number, detail: string): MergeError {
  return new MergeError(
    "invalid_row",
    `line ${line} is no row of calibration text: ${detail}`,
    ROW_EXPECTED,
    `line ${line}`,
  );
}

/**
 * Counts the rows of calibration text, each of which must be an object with a prompt or a text.
 *
 * @throws {MergeError} `not_text`, `invalid_row`
 */
export function countRows(bytes: Uint8Array): number {
  let rows = 0;
  for (const [index, line] of decode(bytes).split("\n").entries()) {
    if (line.trim() === "") continue;
    let row: unknown;
    try {
      row = JSON.parse(line);
    } catch (error) {
      throw invalidRow(index + 1, (error as Error).message);
    }
    const { prompt, text } = (row ?? {}) as { prompt?: unknown; text?: unknown };
    if (typeof prompt !== "string" && typeof text !== "string") {
      throw invalidRow(index + 1, "neither prompt nor text");
    }
    rows++;
  }
  if (rows === 0) {
    throw new MergeError("invalid_row", "the text has no rows, expected at least one", ROW_EXPECTED, "body");
  }
  return rows;
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new MergeError(
      "not_text",
      "the text is not in UTF-8",
      "send a JSON Lines file in UTF-8",
      "body",
    );
  }
}
