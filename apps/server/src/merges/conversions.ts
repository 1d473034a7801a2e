import { randomUUID } from "node:crypto";
import { join } from "node:path";
import type { OutputFormat } from "@lora-loom/formats";
import type { DataFolder } from "../data/folder.ts";
import { removeIfThere } from "../data/durable.ts";
import { ServerError } from "../errors.ts";
import type { Limits } from "../limits.ts";
import type { Models } from "../models/models.ts";
import type { InspectionWork } from "../work/inspection.ts";
import type { MergeResource } from "./merge.ts";
import type { Results } from "./results.ts";

/** What conversions work with. */
export interface ConversionParts {
  readonly inspector: InspectionWork;
  readonly results: Results;
  readonly models: Models;
  readonly folder: DataFolder;
  readonly limits: Limits;
}

/** Results in other layouts, written when they are asked for. */
export class Conversions {
  #running = 0;

  constructor(private readonly parts: ConversionParts) {}

  /**
   * Writes the result of a merge in another layout.
   *
   * @returns the folder that holds it, which the caller removes; what a killed server leaves, the next start removes
   * @throws {ServerError} `too_many_conversions`; {FormatError} where the layout cannot hold it
   */
  async run({ id, request }: MergeResource, to: OutputFormat): Promise<string> {
    const { inspector, results, models, folder, limits } = this.parts;
    if (this.#running >= limits.uploads) {
      const message = `${limits.uploads} conversions are at work already`;
      throw new ServerError(503, "too_many_conversions", message, "ask again in a moment");
    }
    const output = join(folder.incoming, randomUUID());
    this.#running++;
    try {
      const base = request.base_model === undefined ? undefined : await models.path(request.base_model);
      await inspector.convert({ input: results.target(id), output, to, base });
      return output;
    } catch (error) {
      await removeIfThere(output);
      throw error;
    } finally {
      this.#running--;
    }
  }
}
