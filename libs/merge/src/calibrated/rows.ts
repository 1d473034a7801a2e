import { readJsonl } from "@lora-loom/model";
import * as v from "valibot";
import { MergeError } from "../errors.ts";

/** One row of calibration text. */
export interface CalibrationRow {
  readonly text: string;
  /** A prompt is answered by the task's own adapter first; a text stands for itself. */
  readonly isPrompt: boolean;
}

/** Rows of one adapter's file: those to calibrate on, and prompts kept out of it to measure agreement on. */
export interface CalibrationSplit {
  readonly calibration: readonly CalibrationRow[];
  readonly heldOut: readonly string[];
}

const rowSchema = v.union([v.object({ prompt: v.string() }), v.object({ text: v.string() })]);

/**
 * Reads the first `samples` rows of a JSON Lines file for calibration and the next prompts for agreement. Rows are
 * `{"prompt": …}` or `{"text": …}`; other keys, such as a label, are not looked at.
 *
 * @param heldOut how many prompts to keep out; fewer where the file has no more
 * @throws {MergeError} `too_few_rows`; {ModelError} `missing_file`, `invalid_row`
 */
export async function readCalibration(
  path: string,
  samples: number,
  heldOut: number,
): Promise<CalibrationSplit> {
  const rows = await readJsonl(path, rowSchema, `{"prompt": …} or {"text": …}`, samples + heldOut);
  if (rows.length < samples) {
    throw new MergeError(
      "too_few_rows",
      `${path} has ${rows.length} rows, and ${samples} are needed for calibration`,
      `add rows, or use fewer with --set parameters.samples=${rows.length}`,
      path,
    );
  }
  return {
    calibration: rows.slice(0, samples).map((row) =>
      "prompt" in row ? { text: row.prompt, isPrompt: true } : { text: row.text, isPrompt: false }
    ),
    heldOut: rows.slice(samples).flatMap((row) => "prompt" in row ? [row.prompt] : []),
  };
}
