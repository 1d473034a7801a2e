import { stageDirectory } from "@lora-loom/formats";
import { checkOutputPath, type MergeSummary, type Recipe } from "@lora-loom/merge";
import { Connection } from "./connection.ts";
import { fetchFile } from "./download.ts";
import { resultOf } from "./follow.ts";
import type { LocalNames } from "./local_names.ts";
import type { RemoteMerge, RemoteResult, ServerRun } from "./remote_merge.ts";
import { requestOf } from "./request.ts";

/**
 * Runs a recipe on a server: uploads what the server does not have, waits, and brings the result back to the recipe's
 * output, which appears complete or not at all.
 *
 * @throws {FormatError} `output_is_input` and what staging throws
 * @throws {MergeError} as the server describes what went wrong; `server_unreachable`, `cancelled`
 */
export async function mergeOnServer(recipe: Recipe, run: ServerRun): Promise<RemoteSummary> {
  checkOutputPath(recipe, run.recipeFile);
  const connection = new Connection(run);
  // Refused before anything is uploaded.
  const staging = await stageDirectory(recipe.output.path, { force: run.force, exclusive: true });
  try {
    const { request, names } = await requestOf(recipe, connection, run);
    const { id, result } = await mergeUploaded(request, names, connection, run);
    for (const file of result.files) await fetchFile(id, file, staging.path, connection);
    await staging.commit();
    return summaryOf(recipe, result, run.server);
  } catch (error) {
    await staging.discard();
    throw error;
  }
}

/** Starts the merge of what was uploaded, and waits for its end. */
async function mergeUploaded(
  request: unknown,
  names: LocalNames,
  connection: Connection,
  run: ServerRun,
): Promise<{ readonly id: string; readonly result: RemoteResult }> {
  try {
    const { id } = await connection.json<RemoteMerge>("/api/merges", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(request),
    });
    const result = await resultOf(id, connection, {
      ...run,
      onProgress: (event) => run.onProgress(names.event(event)),
    });
    return { id, result: { ...result, warnings: result.warnings.map((warning) => names.warning(warning)) } };
  } catch (error) {
    throw names.error(error);
  }
}

/** What a merge on a server did: as `MergeSummary`, but that a server may not know its memory any more. */
export type RemoteSummary =
  & Omit<MergeSummary, "peak_rss_bytes" | "peak_gpu_bytes">
  & {
    readonly peak_rss_bytes: number | null;
    readonly peak_gpu_bytes: number | null;
    readonly server: string;
  };

function summaryOf(recipe: Recipe, result: RemoteResult, server: string): RemoteSummary {
  const { rank, modules, device, seconds, quality, warnings, peak_rss_bytes, peak_gpu_bytes } = result;
  return {
    output: recipe.output.path,
    method: recipe.method,
    adapters: recipe.adapters.map(({ name, path, weight }) => ({ name, path, weight })),
    modules,
    rank,
    device,
    seconds,
    peak_rss_bytes,
    peak_gpu_bytes,
    quality,
    warnings,
    server,
  };
}
