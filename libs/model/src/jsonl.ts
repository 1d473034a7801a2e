import * as v from "valibot";
import { ModelError } from "./errors.ts";
import { readTextFile } from "./json_file.ts";

/** A row of a task: what the model is given, and what it should answer. */
export interface TaskRow {
  readonly prompt: string;
  readonly completion: string;
}

const taskRow = v.object({ prompt: v.string(), completion: v.string() });

/**
 * Reads a file of one JSON object a line, each checked against a schema. Blank lines are skipped.
 *
 * @param expected what a row should look like, for errors
 * @param limit read at most this many rows
 * @throws {ModelError} `missing_file`, `not_a_file`, or `invalid_row` naming the line
 */
export async function readJsonl<Row>(
  path: string,
  schema: v.GenericSchema<unknown, Row>,
  expected: string,
  limit = Infinity,
): Promise<Row[]> {
  const text = await readTextFile(path, `pass a file of rows ${expected}`);
  const rows: Row[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    if (rows.length >= limit) break;
    if (line.trim() !== "") rows.push(parseRow(line, schema, expected, `${path}:${index + 1}`));
  }
  if (rows.length > 0) return rows;
  throw new ModelError("invalid_row", `${path} has no rows`, `write one row ${expected} a line`, path);
}

function parseRow<Row>(
  line: string,
  schema: v.GenericSchema<unknown, Row>,
  expected: string,
  where: string,
): Row {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch (error) {
    throw invalidRow(`the line is not JSON: ${(error as Error).message}`, expected, where);
  }
  const result = v.safeParse(schema, json);
  if (result.success) return result.output;
  throw invalidRow(`expected a row ${expected}, found ${shortened(JSON.stringify(json))}`, expected, where);
}

function invalidRow(message: string, expected: string, where: string): ModelError {
  return new ModelError("invalid_row", message, `write one row ${expected} a line`, where);
}

function shortened(text: string): string {
  return text.length <= 80 ? text : `${text.slice(0, 79)}…`;
}

/** Rows `{"prompt", "completion"}` of a JSONL file; other keys are ignored. */
export function readTask(path: string, limit?: number): Promise<TaskRow[]> {
  return readJsonl(path, taskRow, `{"prompt": …, "completion": …}`, limit);
}
