import type { Blame, MergeSummary, ProgressEvent } from "@lora-loom/merge";
import type { RemoteError, ServerAddress } from "./connection.ts";

/** How to run a recipe on a server. */
export interface ServerRun extends ServerAddress {
  /** Replace the output if it is an earlier result. */
  readonly force: boolean;
  /** Where the recipe was read. */
  readonly recipeFile: string;
  readonly signal: AbortSignal;
  onProgress(event: ProgressEvent): void;
  /** Says something beside the progress. */
  note(line: string): void;
}

/** A merge as the server shows it, as far as this program looks at it. */
export interface RemoteMerge {
  readonly id: string;
  readonly state: "queued" | "running" | "done" | "failed" | "cancelled";
  readonly waiting: number | null;
  readonly result: RemoteResult | null;
  readonly error: RemoteError & { readonly blame?: Blame } | null;
}

/** What came of a merge. */
export type RemoteResult =
  & Pick<MergeSummary, "rank" | "modules" | "device" | "quality" | "warnings" | "seconds">
  & { readonly peak_rss_bytes: number | null; readonly peak_gpu_bytes: number | null }
  & { readonly files: readonly RemoteFile[] };

/** A file that the server has. */
export interface RemoteFile {
  readonly name: string;
  readonly sha256: string;
}
