import type { ErrorReport, ProgressEvent, Recipe } from "@lora-loom/merge";

/** What an adapter-inspecting thread is asked. */
export interface CallMessage {
  readonly id: number;
  readonly call: string;
  readonly argument: unknown;
}

/** What it answers: a value, or what went wrong. */
export interface ReplyMessage {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: ErrorReport;
}

/** The device that merges run on. */
export interface DeviceFacts {
  readonly name: string;
  readonly backend: string;
  readonly class: string;
}

/** The most memory that a merge held. */
export interface MemoryPeaks {
  readonly peak_rss_bytes: number | null;
  readonly peak_gpu_bytes: number | null;
}

/** What the merging thread is told. */
export type MergeOrder =
  | { readonly type: "open" }
  | { readonly type: "run"; readonly id: string; readonly recipe: Recipe }
  | { readonly type: "cancel"; readonly id: string };

/** What it tells. */
export type MergeNews =
  | { readonly type: "device"; readonly device: DeviceFacts }
  | { readonly type: "no_device"; readonly error: ErrorReport }
  | { readonly type: "progress"; readonly id: string; readonly event: ProgressEvent }
  | { readonly type: "done"; readonly id: string; readonly peaks: MemoryPeaks }
  | { readonly type: "failed"; readonly id: string; readonly error: ErrorReport };
