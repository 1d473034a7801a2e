import { type Adapter, convertAdapter, type ConvertOptions, openAdapter } from "@lora-loom/formats";
import {
  closeAdapters,
  describeError,
  inspectAdapter,
  type Inspection,
  METHODS,
  openAdapters,
  planMerge,
  type Recipe,
} from "@lora-loom/merge";
import { countRows } from "../calibrations/count_rows.ts";

/** How an adapter is to be read, where that is not plain; as in a recipe. */
export interface ReadingOptions {
  /** What may be lost: kinds such as `dora`, modules or tensors. */
  readonly drop?: readonly string[];
  /** Expand LoHa and LoKr. */
  readonly expand?: boolean;
}

/** An adapter on the disk. */
export interface AdapterPlace extends ReadingOptions {
  readonly path: string;
}

/** What an adapter is, from its header and configuration alone. */
export interface AdapterFacts {
  readonly format: string;
  readonly base_model: string | null;
  readonly task_type: string | null;
  readonly dtype: string;
  readonly ranks: readonly number[];
  /** Numbers in all factors. */
  readonly parameters: number;
  readonly modules: number;
  readonly warnings: readonly { readonly code: string; readonly message: string; readonly where: string }[];
}

/** What a merge will give, known before it runs. */
export interface PlanFacts {
  readonly modules: number;
  readonly rank: number;
}

/** An adapter to write in another layout. */
export interface ConversionOrder extends Pick<ConvertOptions, "to" | "dtype" | "base"> {
  readonly input: string;
  readonly output: string;
}

const distinct = (values: readonly number[]) => [...new Set(values)].sort((x, y) => x - y);

function factsOf(adapter: Adapter): AdapterFacts {
  const modules = [...adapter.modules.values()];
  return {
    format: adapter.format,
    base_model: adapter.baseModel ?? null,
    task_type: adapter.taskType ?? null,
    dtype: modules[0]?.a.dtype ?? "",
    ranks: distinct(modules.map(({ rank }) => rank)),
    parameters: modules.reduce(
      (sum, { rank, inFeatures, outFeatures }) => sum + rank * (inFeatures + outFeatures),
      0,
    ),
    modules: modules.length,
    warnings: adapter.warnings,
  };
}

async function plan(recipe: Recipe): Promise<PlanFacts> {
  const adapters = await openAdapters(recipe);
  try {
    const { modules, rank } = planMerge(recipe, adapters, METHODS.get(recipe.method)!);
    return { modules: modules.length, rank };
  } finally {
    closeAdapters(adapters);
  }
}

/** Work on adapters that needs no GPU, but more time than a request may hold up the others. */
export const INSPECTION = {
  /** Opens an adapter and checks all but its values. */
  async describe({ path, ...options }: AdapterPlace): Promise<AdapterFacts> {
    using adapter = await openAdapter(path, options);
    return factsOf(adapter);
  },
  /** Reads every value: norms, singular values, problems. */
  inspect: ({ path, ...options }: AdapterPlace): Promise<Inspection> => inspectAdapter(path, options),
  /** Refuses a merge that cannot be. */
  plan,
  /** Reads calibration text row by row. */
  countRows: (bytes: Uint8Array<ArrayBuffer>): Promise<number> => Promise.try(() => countRows(bytes)),
  /** Writes an adapter in another layout. */
  async convert({ input, output, ...options }: ConversionOrder): Promise<void> {
    await convertAdapter(input, output, options);
  },
};

export type InspectionWork = typeof INSPECTION;

/** Brings what was thrown into a form that can cross to another thread. */
export const portable = describeError;
