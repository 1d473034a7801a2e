import { basename } from "node:path";
import { memoryInRecipe, MergeError, METHODS, type Recipe } from "@lora-loom/merge";
import type { Connection } from "./connection.ts";
import { LocalNames } from "./local_names.ts";
import type { ServerRun } from "./remote_merge.ts";
import { type RemoteAdapter, uploadAdapter, uploadText } from "./upload.ts";

/** A recipe for a server. */
export interface RemoteRequest {
  /** What the server's API takes. */
  readonly request: unknown;
  /** Says the server's answers with the recipe's paths. */
  readonly names: LocalNames;
}

/** The recipe with what the server calls its parts, which are uploaded where it lacks them. */
export async function requestOf(
  recipe: Recipe,
  connection: Connection,
  run: ServerRun,
): Promise<RemoteRequest> {
  const { capture } = recipe.adapters[0]!;
  if (capture !== undefined && METHODS.get(recipe.method)?.needs.calibration) throw captureStaysHere(capture);
  const known = await connection.json<RemoteAdapter[]>("/api/adapters");
  const adapters = [];
  const paths: [theirs: string, ours: string][] = [];
  for (const adapter of recipe.adapters) {
    run.signal.throwIfAborted();
    const { name, weight, calibration } = adapter;
    const { id, shown } = await uploadAdapter(adapter, known, connection, run);
    paths.push([shown, adapter.path], [id, adapter.path]);
    const text = calibration === undefined ? {} : { calibration: await uploadText(calibration, connection) };
    adapters.push({ id, name, weight, ...text });
  }
  const { method, parameters, refine, memory, include, exclude, output, seed, device } = recipe;
  const base = await modelOf(recipe, connection, run);
  const request = {
    name: basename(output.path),
    method,
    ...(base === undefined ? {} : { base_model: base }),
    adapters,
    parameters,
    ...(refine === undefined ? {} : { refine }),
    memory: memoryInRecipe(memory),
    include,
    exclude,
    format: output.format,
    dtype: output.dtype,
    seed,
    device,
  };
  return { request, names: new LocalNames(paths) };
}

function captureStaysHere(path: string): MergeError {
  return new MergeError(
    "captures_on_server",
    `${path} is a capture, which servers do not take`,
    "merge here: leave --server out. Captures need no base model, and any GPU or CPU will do",
    path,
  );
}

/** The server's own copy of the base model, by the name of its folder. */
async function modelOf(
  { baseModel, method }: Recipe,
  connection: Connection,
  run: ServerRun,
): Promise<string | undefined> {
  if (baseModel === undefined) return undefined;
  const models = await connection.json<{ name: string }[]>("/api/models");
  const found = models.find(({ name }) => basename(name) === basename(baseModel));
  if (found) return found.name;
  const list = models.map(({ name }) => name).join(", ") || "none";
  if (METHODS.get(method)?.needs.baseModel) {
    throw new MergeError(
      "unknown_model",
      `the server has no base model called ${basename(baseModel)}; it has ${list}`,
      "start the server with --models DIR, a folder that holds the model's folder under this name",
      "base_model",
    );
  }
  run.note(
    `the server has no base model called ${basename(baseModel)} (it has ${list}); ${method} goes without`,
  );
  return undefined;
}
