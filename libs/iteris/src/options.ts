import { IterisError } from "./errors.ts";
import type { Precision } from "./product_sum.ts";

/**
 * λ_i of a task at a module. `full` = ‖W0 + W_i‖²_F / ‖X_i (W0 + W_i)ᵀ‖²_F, as the authors' code has it; `delta` = the same with
 * W_i alone, as the paper's text has it; `none` = 1.
 */
export type AdaptiveWeights = "full" | "delta" | "none";

/**
 * How a solution W is cut to a lower rank. `weighted`: the best approximation on the calibration text, by the eigenvectors of
 * W G Wᵀ. `plain`: singular value decomposition of W, the best approximation on inputs without structure.
 */
export type TruncationKind = "weighted" | "plain";

/**
 * In what a GPU sums S_i and C_i over tokens. `single`: f32, which is off by about 1e-7 and leaves solutions for a tiny α off by up to
 * 1e-3. `double`: pairs of f32, off by about 1e-10, at several times the arithmetic. `auto`: `double` where α is below 1e-5. The CPU
 * device always sums in float64.
 */
export type PrecisionOption = Precision | "auto";

/** Options that both methods share. */
export interface CommonOptions {
  /** Sequences a task; the first ones are used. Absent: all. */
  readonly samples?: number;
  /**
   * α of the regulariser, relative to each task's Gram norm: a number of at least 0, or `auto` for the value that does best on
   * every fifth sequence, kept out of the fit. Default 1e-4.
   */
  readonly alpha?: number | "auto";
  /** Rank of the merged deltas. Absent: Σr_i, which is exact without drift and stream. */
  readonly rank?: number;
  /** Default `weighted`. */
  readonly truncation?: TruncationKind;
  /** Default `auto`. */
  readonly precision?: PrecisionOption;
}

/** Options of {@linkcode iteris}. */
export interface IterisOptions extends CommonOptions {
  /**
   * `sweep`: one pass over the stages, each solved on what the already merged stages produce. `jacobi`: all stages solved
   * together, again and again, each time on what the previous solution produces. Default `sweep`.
   */
  readonly schedule?: "sweep" | "jacobi";
  /** Passes of `jacobi`. Default 10. */
  readonly iterations?: number;
  /** Ends `jacobi` once no merged delta moves by more than this, relative to its norm. Default 0: never. */
  readonly tolerance?: number;
  /** Default `full`. */
  readonly adaptiveWeights?: AdaptiveWeights;
}

/** Options of {@linkcode iterisPlus}. */
export interface IterisPlusOptions extends CommonOptions {
  /** ρ in [0, 1], the weight of a token that predicts no part of the answer. Default 1. */
  readonly tokenWeight?: number;
  /** Also correct W0 (X_i − X̃_i), what earlier modules changed in this one's input. Default true. */
  readonly drift?: boolean;
  /** Let the modules that write the residual stream also correct H_i − H̃_i, what is wrong in it. Default true. */
  readonly stream?: boolean;
  /** γ in (0, 1]: how much of the identity is mixed into each output metric; 1 leaves them without effect. Default 0.1. */
  readonly metricDamping?: number;
  /** Most conjugate-gradient steps of a module's system with output metrics. Default 20. */
  readonly metricSteps?: number;
}

/** Options of either method, resolved and checked. */
export interface Settings {
  readonly samples: number | undefined;
  readonly alpha: number | "auto";
  readonly rank: number | undefined;
  readonly truncation: TruncationKind;
  readonly precision: PrecisionOption;
  readonly schedule: "sweep" | "jacobi";
  readonly iterations: number;
  readonly tolerance: number;
  readonly adaptiveWeights: AdaptiveWeights;
  readonly tokenWeight: number;
  readonly drift: boolean;
  readonly stream: boolean;
  readonly metricDamping: number;
  readonly metricSteps: number;
}

/** The defaults of {@linkcode iteris}, faithful to the paper's objective. */
export const ITERIS_DEFAULTS: Settings = {
  samples: undefined,
  alpha: 1e-4,
  rank: undefined,
  truncation: "weighted",
  precision: "auto",
  schedule: "sweep",
  iterations: 10,
  tolerance: 0,
  adaptiveWeights: "full",
  tokenWeight: 1,
  drift: false,
  stream: false,
  metricDamping: 0.1,
  metricSteps: 20,
};

/** The defaults of {@linkcode iterisPlus}. */
export const ITERIS_PLUS_DEFAULTS: Settings = {
  ...ITERIS_DEFAULTS,
  adaptiveWeights: "none",
  drift: true,
  stream: true,
};

/** One rule per option: what it must be, in words, and the test. */
const RULES: {
  readonly [K in keyof Settings]: readonly [expected: string, holds: (value: Settings[K]) => boolean];
} = {
  samples: ["a whole number of at least 1", (value) => value === undefined || isWhole(value)],
  alpha: [
    "auto or a number of at least 0",
    (value) => value === "auto" || (value >= 0 && Number.isFinite(value)),
  ],
  rank: ["a whole number of at least 1", (value) => value === undefined || isWhole(value)],
  truncation: ["weighted or plain", (value) => value === "weighted" || value === "plain"],
  precision: ["auto, single or double", (value) => ["auto", "single", "double"].includes(value)],
  schedule: ["sweep or jacobi", (value) => value === "sweep" || value === "jacobi"],
  iterations: ["a whole number of at least 1", isWhole],
  tolerance: ["a number of at least 0", (value) => value >= 0 && Number.isFinite(value)],
  adaptiveWeights: ["full, delta or none", (value) => ["full", "delta", "none"].includes(value)],
  tokenWeight: ["a number from 0 to 1", (value) => value >= 0 && value <= 1],
  drift: ["true or false", (value) => typeof value === "boolean"],
  stream: ["true or false", (value) => typeof value === "boolean"],
  metricDamping: ["a number above 0 and up to 1", (value) => value > 0 && value <= 1],
  metricSteps: ["a whole number of at least 1", isWhole],
};

function isWhole(value: number): boolean {
  return Number.isInteger(value) && value >= 1;
}

/**
 * Fills `options` up with `defaults` and checks them.
 *
 * @throws {IterisError} `invalid_option`, naming the option
 */
export function resolveOptions(
  defaults: Settings,
  options: IterisOptions | IterisPlusOptions = {},
): Settings {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const settings: Settings = { ...defaults, ...given };
  for (const name of Object.keys(RULES) as (keyof Settings)[]) check(name, settings);
  return settings;
}

/** Below this α, what rounding does to a Gram matrix shows in the solution. */
const SMALL_ALPHA = 1e-5;

/** What to sum in. */
export function precisionOf({ precision, alpha }: Settings): Precision {
  if (precision !== "auto") return precision;
  return alpha !== "auto" && alpha < SMALL_ALPHA ? "double" : "single";
}

function check<K extends keyof Settings>(name: K, settings: Settings): void {
  const [expected, holds] = RULES[name];
  if (holds(settings[name])) return;
  throw new IterisError(
    "invalid_option",
    `${name} is ${JSON.stringify(settings[name])}, expected ${expected}`,
    `set ${name} to ${expected}`,
    name,
  );
}
