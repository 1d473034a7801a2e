import type { Warning } from "@lora-loom/formats";
import type { MemoryNeeds } from "../memory/needs.ts";
import type { Quality } from "./figures.ts";

/** What a merge did: the object that `merge --json` prints. */
export interface MergeSummary {
  /** Absolute path of the folder written. */
  readonly output: string;
  readonly method: string;
  readonly adapters: readonly { readonly name: string; readonly path: string; readonly weight: number }[];
  /** How many modules were merged. */
  readonly modules: number;
  /** Uniform rank of the merged adapter. */
  readonly rank: number;
  readonly device: { readonly name: string; readonly backend: string };
  /** Wall-clock seconds: of everything, and of the parts that the work waited for. */
  readonly seconds: {
    readonly total: number;
    readonly read: number;
    readonly compute: number;
    readonly write: number;
  };
  readonly peak_rss_bytes: number;
  readonly peak_gpu_bytes: number;
  /** Present where the base model was run: what was to be expected before the work began. */
  readonly predicted?: MemoryNeeds;
  readonly quality: Quality;
  /** Present where the recipe asks for a refinement. */
  readonly refinement?: {
    readonly steps_done: number;
    /** The step that was kept; 0 is the merge before refinement. */
    readonly kept_step: number;
    readonly first_loss: number | null;
    readonly last_loss: number | null;
    /** Mean agreement on prompts kept out, of the merge before refinement. */
    readonly agreement_before: number | null;
  };
  readonly warnings: readonly Warning[];
}
