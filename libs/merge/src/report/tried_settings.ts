import type { TriedSetting } from "./figures.ts";

const NAMES = ["metric", "alpha", "token_weight", "splices"] as const;

/** Settings that a method chose among, each in words that tell it from the others, such as `metric: output`. */
export function triedSettings(
  tried: readonly TriedSetting[],
): readonly { readonly text: string; readonly agreement: number; readonly kept: boolean }[] {
  const telling = NAMES.filter((name) => new Set(tried.map((setting) => setting[name])).size > 1);
  return tried.map((setting) => ({
    text: telling.map((name) => `${name}: ${setting[name]}`).join(", "),
    agreement: setting.agreement,
    kept: setting.kept,
  }));
}
