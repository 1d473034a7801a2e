import type { OutputFormat } from "@lora-loom/formats";
import type { AdapterStore } from "../adapters/adapter_store.ts";
import type { CalibrationStore } from "../calibrations/calibration_store.ts";
import type { Limits } from "../limits.ts";
import type { MergeQueue } from "../merges/merge_queue.ts";
import type { MergeRequest, MergeResource } from "../merges/merge.ts";
import type { Results } from "../merges/results.ts";
import type { Models } from "../models/models.ts";
import type { EventStreams } from "./event_stream.ts";
import type { DeviceState } from "../work/merger.ts";

/** Everything that routes work with. */
export interface Services {
  readonly limits: Limits;
  readonly adapters: AdapterStore;
  readonly calibrations: CalibrationStore;
  readonly models: Models;
  readonly merges: MergeQueue;
  readonly results: Results;
  readonly streams: EventStreams;
  /** Refuses a merge that cannot be, before it is queued. */
  checkMerge(request: MergeRequest): Promise<void>;
  /**
   * Writes the result of a merge in another layout, in a folder that the caller removes.
   *
   * @throws {ServerError} `too_many_conversions`; {FormatError} where the layout cannot hold it
   */
  convert(merge: MergeResource, to: OutputFormat): Promise<string>;
  readonly device: () => DeviceState;
  /** Hides paths of the server in a text. */
  readonly hide: (text: string) => string;
}
