import { LegoError } from "./errors.ts";

/**
 * Every choice of the method, under the names that recipes use. What is left out is taken from {@linkcode lego}, the
 * faithful preset.
 */
export interface LegoOptions {
  /**
   * The number of clusters, k, which is the rank of the result: from 1 to the pool's Σr. Default: twice the mean rank of
   * the adapters, at most the pool.
   */
  readonly rank?: number | undefined;
  /**
   * What a minimal semantic unit is: a rank of the adapter as stored (`native`), or a singular triplet (√σ v, √σ u) of
   * its delta (`svd`), which does not depend on how the delta was factored. With `svd` the scale is part of σ and
   * `alpha_fold` has nothing to do.
   */
  readonly basis?: "native" | "svd" | undefined;
  /**
   * Where scale · weight of an adapter goes before clustering: into b, as its square root into a and b, or nowhere; then
   * the b of a cluster is multiplied at the end by the mean factor of its members.
   */
  readonly alpha_fold?: "none" | "b" | "sqrt" | undefined;
  /** What clustering sees of a and b: as they are, or divided by their norms. Representatives are made of the units as they are. */
  readonly features?: "raw" | "unit" | undefined;
  /**
   * The similarity of two units that clustering works on: ⟨aᵢ, aⱼ⟩ + ⟨bᵢ, bⱼ⟩ (`sum`: Euclidean distance of the vectors
   * [a; b]), or ⟨aᵢ, aⱼ⟩ · ⟨bᵢ, bⱼ⟩ (`product`: Frobenius distance of the rank-one deltas b aᵀ, blind to signs and scales that
   * cancel within a unit).
   */
  readonly kernel?: "sum" | "product" | undefined;
  /**
   * Which of (a, b) and (−a, −b) a unit is: as stored; the one whose largest-magnitude entry of a is positive
   * (`argmax`); or clustered with the product kernel, then balanced and turned towards the leading eigenvector of its
   * cluster (`kernel`).
   */
  readonly sign?: "none" | "argmax" | "kernel" | undefined;
  /** `ward`: Ward linkage, then Hartigan moves; deterministic. `kmeans`: seeded starts, then Lloyd's iteration. */
  readonly optimizer?: "ward" | "kmeans" | undefined;
  /** How `kmeans` and the restarts of `ward` choose their first centroids. */
  readonly initialisation?: "k-means++" | "random" | undefined;
  /** Seeded starts: how many `kmeans` makes (at least one), or how many `ward` tries besides its own. The best is kept. */
  readonly restarts?: number | undefined;
  /** Most iterations of Lloyd, or sweeps of Hartigan, per start. */
  readonly max_iterations?: number | undefined;
  readonly seed?: number | undefined;
  /** At most one unit of each adapter in a cluster (Hungarian assignment); needs a rank of at least the largest adapter's. */
  readonly one_per_adapter?: boolean | undefined;
  /** What stands for a cluster: the mean of its units, or the leading singular pair of the sum of their deltas. */
  readonly representative?: "mean" | "svd" | undefined;
  /**
   * Makes up for the norm that a mean loses: the representative μ = [a; b] is multiplied by mean‖xᵢ‖ / ‖μ‖ over its
   * members, in the ∞-norm or the 2-norm.
   */
  readonly parameter_reweight?: "inf" | "l2" | "none" | undefined;
  /**
   * One factor for the whole result: √(r/k) with r the mean rank, √(N/k) with N the size of the pool, the factor that
   * brings ‖ΔW'‖_F to the mean of ‖ΔW_t‖_F, none, or a number of one's own.
   */
  readonly output_scale?: "sqrt(r/k)" | "sqrt(N/k)" | "frobenius" | "none" | number | undefined;
}

/** {@linkcode LegoOptions} with nothing left open but the rank. */
export type ResolvedOptions =
  & { readonly rank: number | undefined }
  & { readonly [Name in Exclude<keyof LegoOptions, "rank">]-?: Exclude<LegoOptions[Name], undefined> };

/** LoRA-LEGO as published (arXiv 2409.16167), with a deterministic optimiser of the same k-means objective. */
export const lego: ResolvedOptions = {
  rank: undefined,
  basis: "native",
  alpha_fold: "b",
  features: "raw",
  kernel: "sum",
  sign: "none",
  optimizer: "ward",
  initialisation: "k-means++",
  restarts: 16,
  max_iterations: 300,
  seed: 42,
  one_per_adapter: false,
  representative: "mean",
  parameter_reweight: "inf",
  output_scale: "sqrt(r/k)",
};

/**
 * The variant that follows the sum of the deltas more closely: units are compared as rank-one deltas, a cluster is
 * represented by the best rank-one approximation of its sum, and the result has the mean norm of the adapters.
 */
export const legoPlus: ResolvedOptions = {
  ...lego,
  kernel: "product",
  representative: "svd",
  parameter_reweight: "none",
  output_scale: "frobenius",
};

const CHOICES = {
  basis: ["native", "svd"],
  alpha_fold: ["none", "b", "sqrt"],
  features: ["raw", "unit"],
  kernel: ["sum", "product"],
  sign: ["none", "argmax", "kernel"],
  optimizer: ["ward", "kmeans"],
  initialisation: ["k-means++", "random"],
  representative: ["mean", "svd"],
  parameter_reweight: ["inf", "l2", "none"],
  output_scale: ["sqrt(r/k)", "sqrt(N/k)", "frobenius", "none"],
} as const;

const COUNTS = { restarts: 0, max_iterations: 1, seed: 0 } as const;

/**
 * Fills in the defaults and checks every value.
 *
 * @throws {LegoError} `unknown_option` or `invalid_option`, naming the option and what it may be
 */
export function resolveOptions(options: LegoOptions = {}): ResolvedOptions {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  for (const [name, value] of given) checkOption(name, value);
  return { ...lego, ...Object.fromEntries(given) } as ResolvedOptions;
}

function checkOption(name: string, value: unknown): void {
  if (!(name in lego)) {
    throw new LegoError(
      "unknown_option",
      `there is no option ${name}`,
      `use one of ${Object.keys(lego).join(", ")}`,
      name,
    );
  }
  if (name === "output_scale" && typeof value === "number") {
    if (!Number.isFinite(value)) throw invalid(name, value, "a finite number");
  } else if (name in CHOICES) {
    const choices: readonly unknown[] = CHOICES[name as keyof typeof CHOICES];
    if (!choices.includes(value)) throw invalid(name, value, choices.join(", "));
  } else if (name in COUNTS) {
    const least = COUNTS[name as keyof typeof COUNTS];
    if (!Number.isSafeInteger(value) || (value as number) < least) {
      throw invalid(name, value, `a whole number from ${least}`);
    }
  } else if (name === "one_per_adapter" && typeof value !== "boolean") {
    throw invalid(name, value, "true or false");
  }
}

function invalid(name: string, value: unknown, expected: string): LegoError {
  return new LegoError(
    "invalid_option",
    `${name} is ${JSON.stringify(value)}, expected ${expected}`,
    `set ${name} to ${expected}`,
    name,
  );
}
