import type { DatabaseSync } from "node:sqlite";
import { resolve } from "node:path";
import type { DeviceChoice, Recipe } from "@lora-loom/merge";
import { AdapterStore } from "./adapters/adapter_store.ts";
import { CalibrationStore } from "./calibrations/calibration_store.ts";
import { openDatabase } from "./data/database.ts";
import { openDataFolder, pathHider } from "./data/folder.ts";
import type { Services } from "./http/context.ts";
import { EventStreams } from "./http/event_stream.ts";
import { DEFAULT_LIMITS, type Limits } from "./limits.ts";
import type { MergeRequest } from "./merges/merge.ts";
import { Conversions } from "./merges/conversions.ts";
import { MergeQueue } from "./merges/merge_queue.ts";
import { MergeStore } from "./merges/merge_store.ts";
import { recipeOf } from "./merges/request.ts";
import { Results } from "./merges/results.ts";
import { checkModelsFolder, Models } from "./models/models.ts";
import type { InspectionWork } from "./work/inspection.ts";
import { Inspector } from "./work/inspector.ts";
import { type DeviceState, type Merger, WorkerMerger } from "./work/merger.ts";

/** What a server works with, besides where it listens. */
export interface ServiceOptions {
  /** The data folder. */
  readonly data: string;
  /** A folder of Hugging Face model folders. */
  readonly models?: string;
  /** What `device: auto` in a recipe means. */
  readonly device?: DeviceChoice;
  readonly limits?: Partial<Limits>;
  /** Instead of threads with devices. For tests. */
  readonly mergers?: readonly Merger[];
  /** Instead of a thread that looks at adapters. For tests. */
  readonly inspector?: InspectionWork;
}

/** Services that can be stopped. */
export interface OpenServices extends Services {
  readonly tokenPath: string;
  /** Puts running merges back into the queue and lets go of everything. */
  stop(): Promise<void>;
}

/** Bytes of everything that is kept. */
function usedBytes(database: DatabaseSync): number {
  const row = database.prepare(`
    SELECT coalesce((SELECT sum(bytes) FROM adapters), 0) + coalesce((SELECT sum(bytes) FROM calibrations), 0)
      + coalesce((SELECT sum(json_extract(result, '$.bytes')) FROM merges WHERE result IS NOT NULL), 0) AS bytes
  `).get();
  return (row as { bytes: number }).bytes;
}

/**
 * Opens a data folder and everything that works on it, and takes up what the last server left there.
 *
 * @throws {ServerError} `models_unusable`, `data_unusable`, `data_in_use`, `data_too_new`
 */
export async function openServices(options: ServiceOptions): Promise<OpenServices> {
  const limits: Limits = { ...DEFAULT_LIMITS, ...options.limits };
  const modelsFolder = options.models === undefined ? undefined : resolve(options.models);
  // Before anything is made.
  if (modelsFolder !== undefined) await checkModelsFolder(modelsFolder);
  const folder = await openDataFolder(options.data);
  const database = openDatabase(folder.database);
  const models = new Models(modelsFolder);
  const hide = pathHider([folder.adapters, folder.merges, folder.path, modelsFolder ?? ""]);
  const thread = options.inspector ? undefined : new Inspector();
  const inspector: InspectionWork = options.inspector ?? thread!;
  const used = () => usedBytes(database);
  const adapters = new AdapterStore({ database, folder, limits, inspector, used, hide });
  const calibrations = new CalibrationStore(database, folder, limits, inspector);
  const results = new Results(folder.merges, hide);
  const workers: readonly Merger[] = options.mergers ??
    Array.from({ length: limits.jobs }, () => new WorkerMerger(options.device ?? "auto"));

  const recipe = (request: MergeRequest, id: string): Promise<Recipe> =>
    recipeOf(request, {
      adapter: (adapter) => ({ name: adapters.get(adapter).name, ...adapters.place(adapter) }),
      calibration: (calibration) => calibrations.path(calibration),
      model: (name) => models.path(name),
      output: results.target(id),
    });
  const merges = new MergeQueue({
    store: new MergeStore(database),
    results,
    mergers: workers,
    limits,
    recipe,
    used,
    hide,
  });
  const conversions = new Conversions({ inspector, results, models, folder, limits });
  // Adapters first: the sweep of uploads must not meet one that is on its way.
  await adapters.recover();
  await calibrations.recover();
  await merges.recover();

  return {
    limits,
    adapters,
    calibrations,
    models,
    merges,
    results,
    streams: new EventStreams(),
    hide,
    tokenPath: folder.token,
    async checkMerge(request) {
      await inspector.plan(await recipe(request, "check"));
    },
    convert: (merge, to) => conversions.run(merge, to),
    device(): DeviceState {
      const [first] = workers;
      return first instanceof WorkerMerger ? first.state : { device: null, error: null };
    },
    async stop() {
      await merges.stop();
      thread?.close();
      await adapters.inspected();
      database.close();
    },
  };
}
