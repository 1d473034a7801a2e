import type { Tensor } from "@lora-loom/tensor";

/** What solving X G = N gave. */
export interface Solved {
  /** X, as the right-hand side: one row each. */
  readonly x: Tensor;
  /** ‖N − X G‖_F / (‖X‖_F ‖G‖_F), of the system as it was solved: scaled to a diagonal near 1. */
  readonly backwardError: number;
  /** Refinement or conjugate-gradient steps taken. */
  readonly iterations: number;
}

/** A symmetric positive definite matrix G, factored: G = L Lᵀ. */
export interface Factor extends Disposable {
  /** Which code factored it. */
  readonly solver: "cpu_float64" | "gpu_refined";
  /** Estimate of the 2-norm condition number of D^-½ G D^-½, D being G's diagonal. */
  readonly condition: number;
  /** What had to be added to the unit diagonal of D^-½ G D^-½ to factor it; 0 as a rule. Solutions are of G itself all the same. */
  readonly shift: number;
  /** Solves X G = N for rows `[m, n]`. */
  solve(rows: Tensor): Promise<Solved>;
  /** Z = N L^-T, `[m, n]`: for X = N G⁻¹, Z Zᵀ = X G Xᵀ. */
  half(rows: Tensor): Promise<Tensor>;
}
