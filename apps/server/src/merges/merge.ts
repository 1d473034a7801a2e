import type { ParameterValue, ProgressEvent } from "@lora-loom/merge";
import type { ReceivedFile } from "../adapters/incoming.ts";
import type { MergeFailure } from "../errors.ts";

/** `queued` → `running` → `done`, `failed` or `cancelled`; a crash brings `running` back to `queued`. */
export type MergeState = "queued" | "running" | "done" | "failed" | "cancelled";

/** One adapter of a merge that a client asks for. */
export interface RequestedAdapter {
  readonly id: string;
  readonly name?: string;
  readonly weight?: number;
  /** Id of a calibration text. */
  readonly calibration?: string;
}

/** A recipe as the API takes it: ids of what was uploaded instead of paths. */
export interface MergeRequest {
  /** How the result is called. */
  readonly name?: string;
  readonly method: string;
  /** A model of the server's models. */
  readonly base_model?: string;
  readonly adapters: readonly RequestedAdapter[];
  readonly parameters?: Readonly<Record<string, ParameterValue>>;
  /** What the merge may take of memory, in the recipe's keys. */
  readonly memory?: Readonly<Record<string, number | string>>;
  /** Settings of a refinement after the merge. */
  readonly refine?: Readonly<Record<string, ParameterValue>>;
  readonly include?: readonly string[];
  readonly exclude?: readonly string[];
  /** Layout of the merged adapter. */
  readonly format?: string;
  readonly dtype?: string;
  readonly seed?: number;
  readonly device?: string;
}

/** What a finished merge left, from its `loom.json` and its files. */
export interface MergeResult {
  readonly rank: number;
  readonly modules: number;
  readonly bytes: number;
  readonly device: { readonly name: string; readonly backend: string };
  readonly seconds: Readonly<Record<string, number>>;
  /** Null where a crash came between the merge and its record. */
  readonly peak_rss_bytes: number | null;
  readonly peak_gpu_bytes: number | null;
  readonly quality: unknown;
  readonly warnings: readonly { readonly code: string; readonly message: string; readonly where: string }[];
  readonly files: readonly ReceivedFile[];
}

/** How far a running merge is. */
export type MergeProgress = ProgressEvent;

/** A merge as the API shows it. */
export interface MergeResource {
  readonly id: string;
  readonly name: string;
  readonly state: MergeState;
  readonly request: MergeRequest;
  readonly created: string;
  readonly started: string | null;
  readonly finished: string | null;
  /** How many merges run before this one; null unless it waits. */
  readonly waiting: number | null;
  readonly progress: MergeProgress | null;
  readonly result: MergeResult | null;
  readonly error: MergeFailure | null;
}
