import type { Inspection } from "@lora-loom/merge";
import type { AdapterFacts, ReadingOptions } from "../work/inspection.ts";
import type { PublicError } from "../errors.ts";
import type { ReceivedFile } from "./incoming.ts";

/** An adapter that the server keeps, as the API shows it in lists. */
export interface AdapterResource extends AdapterFacts, ReadingOptions {
  /** From its content and how it is read: the same files have the same id. */
  readonly id: string;
  readonly name: string;
  /** ISO 8601. */
  readonly created: string;
  readonly bytes: number;
  readonly files: readonly ReceivedFile[];
}

/** Norms, spectra and problems of an adapter, without where it lies. */
export type PublicInspection = Omit<Inspection, "path" | "files" | "name">;

/** An adapter by itself. */
export interface AdapterDetail extends AdapterResource {
  /** Null until it was looked at. */
  readonly inspection: PublicInspection | null;
  /** Why it could not be looked at. */
  readonly problem: PublicError | null;
}
