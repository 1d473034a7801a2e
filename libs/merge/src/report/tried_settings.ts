import type { TriedSetting } from "./figures.ts";

const NAMES = ["metric", "alpha", "token_weight", "splices"] as const;

/** A setting that a method tried, in words that tell it from the others, such as `metric: output`. */
export interface TriedText {
  readonly text: string;
  readonly agreement: number;
  /** How much more it agrees than the first setting, with the standard error, such as `+0.020 ± 0.027`; empty for that one. */
  readonly difference: string;
  readonly kept: boolean;
}

/** Settings that a method chose among. */
export function triedSettings(tried: readonly TriedSetting[]): readonly TriedText[] {
  const telling = NAMES.filter((name) => new Set(tried.map((setting) => setting[name])).size > 1);
  return tried.map((setting) => ({
    text: telling.map((name) => `${name}: ${setting[name]}`).join(", "),
    agreement: setting.agreement,
    difference: differenceText(setting),
    kept: setting.kept,
  }));
}

function differenceText({ difference }: TriedSetting): string {
  if (!difference) return "";
  const { mean, standard_error } = difference;
  return `${mean < 0 ? "−" : "+"}${Math.abs(mean).toFixed(3)} ± ${standard_error.toFixed(3)}`;
}
