import type { Parameters } from "../methods/method.ts";

/** Settings that a choice by agreement tries; everything else is as the recipe says. */
export interface Candidate {
  readonly alpha: number | "auto";
  /** ρ */
  readonly tokenWeight: number;
  /** Spliced prompts a task. */
  readonly splices: number;
  readonly metric: "none" | "output";
}

/** Splices beyond that repeat themselves: fifty prompts give 150. */
const SPLICES_PER_PROMPT = 3;

/** What of the recipe asks for a choice by agreement, in its words. */
export function choosers({ tune, metric }: Parameters): readonly ("tune: agreement" | "metric: auto")[] {
  return [
    ...(tune === "agreement" ? ["tune: agreement" as const] : []),
    ...(metric === "auto" ? ["metric: auto" as const] : []),
  ];
}

/**
 * What is to be tried, in the order in which ties are decided: one candidate where the recipe leaves no choice. Without output metrics comes
 * before with them, and the recipe's own settings before those of the short list.
 */
export function candidates(parameters: Parameters): readonly Candidate[] {
  const metrics = parameters.metric === "auto"
    ? ["none", "output"] as const
    : [parameters.metric === "output" ? "output" : "none"] as const;
  const list = settings(parameters);
  return metrics.flatMap((metric) => list.map((setting) => ({ ...setting, metric })));
}

type Setting = Omit<Candidate, "metric">;

/**
 * The recipe's own settings, and with `tune: agreement` the short list. Which one is best depends on the length of the answers and on the
 * templates of the prompts, so none can be a fixed choice.
 */
function settings(parameters: Parameters): readonly Setting[] {
  const given: Setting = {
    alpha: parameters.alpha as number | "auto",
    tokenWeight: (parameters.token_weight ?? 1) as number,
    splices: (parameters.splices ?? 0) as number,
  };
  if (parameters.tune !== "agreement") return [given];
  const splices = SPLICES_PER_PROMPT * (parameters.samples as number);
  const list: Setting[] = [
    given,
    { alpha: 1e-4, tokenWeight: 1, splices: 0 },
    { alpha: 1e-3, tokenWeight: 0.3, splices: 0 },
    { alpha: 1e-4, tokenWeight: 1, splices },
    { alpha: 1e-3, tokenWeight: 0.3, splices },
  ];
  const seen = new Set<string>();
  return list.filter((setting) => {
    const key = JSON.stringify(setting);
    return !seen.has(key) && seen.add(key);
  });
}
