import type { Agreement } from "../report/figures.ts";

/** What a refinement did, in the names of `loom.json`. */
export interface RefinementRecord {
  /** Steps asked for, and steps done before agreement stopped rising. */
  readonly steps: number;
  readonly steps_done: number;
  /** The step after which the factors were kept; 0 is the merge before refinement. */
  readonly kept_step: number;
  /** Sequences of each task, splices among them. */
  readonly sequences: Readonly<Record<string, number>>;
  /** Loss of each step's minibatch, before the step. */
  readonly losses: readonly number[];
  /** The part of it that compares hidden states. */
  readonly state_losses: readonly number[];
  /** Agreement on the prompts kept out, after so many steps. */
  readonly agreement: readonly {
    readonly step: number;
    readonly mean: number;
    readonly tasks: Agreement["tasks"];
  }[];
  /** Present when it went wrong: what was written is the merge before refinement. */
  readonly failure?: { readonly code: string; readonly message: string };
}
