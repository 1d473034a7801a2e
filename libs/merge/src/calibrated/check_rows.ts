import { splice } from "@lora-loom/iteris";
import { MergeError } from "../errors.ts";
import type { CalibrationSplit } from "./rows.ts";
import { seededRandom } from "./seeded_random.ts";
import type { Session } from "./session.ts";

/**
 * Refuses rows that the model cannot read, before time is spent on the others.
 *
 * @param path of the calibration file
 * @throws {MergeError} `sequence_too_long`, `empty_row`
 */
export function checkRows(
  { tokenizer, model }: Session,
  path: string,
  { calibration, heldOut }: CalibrationSplit,
  maxNewTokens: number,
): void {
  const rows = [...calibration, ...heldOut.map((text) => ({ text, isPrompt: true }))];
  for (const { text, isPrompt } of rows) {
    const tokens = tokenizer.encode(text).length;
    const excerpt = JSON.stringify(text.length <= 60 ? text : `${text.slice(0, 59)}…`);
    if (tokens === 0) {
      throw new MergeError("empty_row", `the row ${excerpt} of ${path} gives no token`, "leave it out", path);
    }
    if (tokens + (isPrompt ? maxNewTokens : 0) <= model.maxPositions) continue;
    const answer = isPrompt ? ` and its answer up to ${maxNewTokens}` : "";
    throw new MergeError(
      "sequence_too_long",
      `a row of ${path} takes ${tokens} tokens${answer}, the model reads ${model.maxPositions}: ${excerpt}`,
      isPrompt ? "shorten it, leave it out, or lower max_new_tokens" : "shorten it, or leave it out",
      path,
    );
  }
}

/** Splices of prompts, without those that grew too long for the model. */
export function fittingSplices(
  { model }: Session,
  prompts: readonly Uint32Array[],
  { count, seed, maxNewTokens }: {
    readonly count: number;
    readonly seed: number;
    readonly maxNewTokens: number;
  },
): Uint32Array[] {
  return splice(prompts, { count, random: seededRandom(seed) })
    .filter(({ length }) => length + maxNewTokens <= model.maxPositions);
}
