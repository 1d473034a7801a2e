import type { MethodFigures } from "../methods/method.ts";

/** How often a merge answers exactly as the task's own adapter does, on prompts that no calibration saw. */
export interface Agreement {
  /** Share of prompts by adapter; only adapters with prompts kept out. */
  readonly tasks: Readonly<Record<string, number>>;
  /** Mean over those adapters. */
  readonly mean: number;
}

/** How much more one merge agrees with the adapters than another, on the same prompts. */
export interface AgreementDifference {
  /** Mean over the adapters. */
  readonly mean: number;
  readonly standard_error: number;
}

/** Settings that a method tried and chose among by agreement, in the names of a recipe. */
export interface TriedSetting {
  readonly alpha: number | "auto";
  readonly token_weight: number;
  readonly splices: number;
  readonly metric: "none" | "output";
  /** Mean agreement of the merge under them. */
  readonly agreement: number;
  /** From the agreement of the first setting; null for that one itself. */
  readonly difference: AgreementDifference | null;
  /** Whether that merge is the result; true of one. */
  readonly kept: boolean;
}

/** What a method measured by running the base model, in the names of `merge --json`; the sum and the mean of the deltas for comparison. */
export interface MeasuredQuality {
  /** Mean over modules and adapters of the relative output error on the calibration text: 0 is perfect, 1 is no adapter. */
  readonly output_error?: Readonly<Record<"merged" | "sum" | "mean", number>>;
  readonly agreement?: Readonly<Record<"merged" | "sum" | "mean", Agreement>>;
  /** Present where the recipe leaves a choice, in the order of trial. */
  readonly tried?: readonly TriedSetting[];
}

/** Inner products of the deltas at one module, all in float64: enough for every norm, cosine and loss. */
export interface DeltaFigures {
  /** Of each adapter that has the module: ‖ΔW_t‖² and ⟨ΔW', ΔW_t⟩, the weights not included. */
  readonly sources: readonly { readonly adapter: number; readonly squares: number; readonly inner: number }[];
  /** ⟨ΔW_s, ΔW_t⟩ of the adapters in `sources`, in their order. */
  readonly between: readonly (readonly number[])[];
  /** ‖ΔW'‖² of the merged delta. */
  readonly squares: number;
  /** ‖S‖² of the weighted sum S = Σ w_t ΔW_t. */
  readonly sumSquares: number;
  /** ⟨ΔW', S⟩ */
  readonly sumInner: number;
  /** Σ_{i≤k} σ_i(S)²: what the best approximation of S at the same rank keeps; null where it was not computed. */
  readonly bestSquares: number | null;
}

/** What is recorded of one merged module. */
export interface ModuleFigures {
  readonly name: string;
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly pooledRank: number;
  readonly rank: number;
  readonly seconds: number;
  readonly deltas: DeltaFigures;
  /** The method's own. */
  readonly method: MethodFigures;
}

/** How close a merged delta came, in the names of `merge --json`. */
export interface Quality extends Partial<MeasuredQuality> {
  /** By adapter: cos(ΔW', ΔW_t). */
  readonly cosine_to_sources: Readonly<Record<string, number>>;
  /** cos(ΔW', S) with the weighted sum S. */
  readonly cosine_to_sum: number;
  /** √(1 − cos²) to the sum: the part of the merged delta's direction that is lost, whatever its length. */
  readonly loss: number;
  /** The same for the best approximation of the sum at this rank; null where it was not computed. */
  readonly best_loss: number | null;
  /** ‖ΔW'‖ / ‖S‖ */
  readonly norm_ratio: number;
}

function cosine(inner: number, left: number, right: number): number {
  const product = Math.sqrt(left * right);
  return product === 0 ? 0 : Math.max(-1, Math.min(1, inner / product));
}

/** √(1 − cos²), clamped against rounding. */
function lossOf(cos: number): number {
  return Math.sqrt(Math.max(0, 1 - cos * cos));
}

/** cos(ΔW_s, ΔW_t) of two adapters over all modules that both have; null where there is none. */
export function similarity(deltas: readonly DeltaFigures[], first: number, second: number): number | null {
  let [inner, left, right] = [0, 0, 0];
  for (const { sources, between } of deltas) {
    const [s, t] = [first, second].map((wanted) => sources.findIndex(({ adapter }) => adapter === wanted));
    if (s! < 0 || t! < 0) continue;
    inner += between[s!]![t!]!;
    left += sources[s!]!.squares;
    right += sources[t!]!.squares;
  }
  return left * right === 0 ? null : cosine(inner, left, right);
}

/** Quality of one module, or of several taken as one long vector. */
export function qualityOf(deltas: readonly DeltaFigures[], adapterNames: readonly string[]): Quality {
  const sum = (pick: (figures: DeltaFigures) => number) =>
    deltas.reduce((total, figures) => total + pick(figures), 0);
  const squares = sum((figures) => figures.squares);
  const sumSquares = sum((figures) => figures.sumSquares);
  const cosineToSum = cosine(sum(({ sumInner }) => sumInner), squares, sumSquares);
  const ofAdapter = (adapter: number) => {
    const parts = deltas.flatMap(({ sources }) => sources.filter((source) => source.adapter === adapter));
    const inner = parts.reduce((total, part) => total + part.inner, 0);
    return cosine(inner, squares, parts.reduce((total, part) => total + part.squares, 0));
  };
  const hasBest = deltas.every(({ bestSquares }) => bestSquares !== null);
  const kept = sum(({ bestSquares }) => bestSquares ?? 0);
  return {
    cosine_to_sources: Object.fromEntries(adapterNames.map((name, index) => [name, ofAdapter(index)])),
    cosine_to_sum: cosineToSum,
    loss: lossOf(cosineToSum),
    best_loss: hasBest ? Math.sqrt(Math.max(0, sumSquares === 0 ? 0 : 1 - kept / sumSquares)) : null,
    norm_ratio: sumSquares === 0 ? 0 : Math.sqrt(squares / sumSquares),
  };
}
