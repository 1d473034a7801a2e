import { Zip, ZipPassThrough } from "fflate";
import { createHash } from "node:crypto";
import { openAsBlob } from "node:fs";
import { open, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { openAdapter, sha256File, stageDirectory } from "@lora-loom/formats";
import {
  memoryInRecipe,
  MergeError,
  type MergeSummary,
  METHODS,
  type ProgressEvent,
  type Recipe,
} from "@lora-loom/merge";

/** How to run a recipe on a server. */
export interface ServerRun {
  /** Such as `http://localhost:8420`. */
  readonly server: string;
  readonly token: string | undefined;
  /** Replace the output if it exists. */
  readonly force: boolean;
  readonly signal: AbortSignal;
  onProgress(event: ProgressEvent): void;
  /** Says something beside the progress. */
  note(line: string): void;
}

/** A merge as the server shows it, as far as this program looks at it. */
interface RemoteMerge {
  readonly id: string;
  readonly state: "queued" | "running" | "done" | "failed" | "cancelled";
  readonly waiting: number | null;
  readonly result: RemoteResult | null;
  readonly error: RemoteError | null;
}

type RemoteResult =
  & Pick<MergeSummary, "rank" | "modules" | "device" | "quality" | "warnings" | "seconds">
  & { readonly peak_rss_bytes: number | null; readonly peak_gpu_bytes: number | null }
  & { readonly files: readonly RemoteFile[] };

interface RemoteFile {
  readonly name: string;
  readonly sha256: string;
}

/** What a recipe can say of how an adapter is read. */
type Reading = Pick<Recipe["adapters"][number], "drop" | "expand">;

interface RemoteAdapter extends Reading {
  readonly id: string;
  readonly files: readonly RemoteFile[];
}

interface RemoteError {
  readonly code: string;
  readonly message: string;
  readonly fix: string;
  readonly where: string;
}

/** Seconds to wait before an event stream that broke off is asked for again. */
const RETRY_SECONDS = [0.2, 1, 3, 10];
const CHUNK_BYTES = 256 * 1024;

function badServer(server: string): MergeError {
  return new MergeError(
    "invalid_server",
    `${JSON.stringify(server)} is no server's address`,
    "write --server http://localhost:8420",
    "--server",
  );
}

/** Requests to one server. Failures come as the server describes them. */
class Connection {
  readonly #base: string;
  readonly #headers: Record<string, string>;

  constructor({ server, token }: ServerRun) {
    const url = URL.parse(server);
    if (!url || !/^https?:$/.test(url.protocol)) throw badServer(server);
    this.#base = url.href.replace(/\/$/, "");
    this.#headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  }

  async send(path: string, init: RequestInit & { duplex?: "half" } = {}): Promise<Response> {
    const headers = { ...this.#headers, ...init.headers as Record<string, string> };
    let response: Response;
    try {
      response = await fetch(`${this.#base}${path}`, { ...init, headers });
    } catch (error) {
      init.signal?.throwIfAborted();
      throw new MergeError(
        "server_unreachable",
        `${this.#base} does not answer: ${(error as Error).message}`,
        "see whether the server runs (deno task serve), and check --server",
        this.#base,
        "work",
      );
    }
    if (response.ok) return response;
    const body = await response.json().catch(() => undefined) as { error?: RemoteError } | undefined;
    throw this.#refusal(response.status, body?.error);
  }

  async json<T>(path: string, init?: RequestInit & { duplex?: "half" }): Promise<T> {
    return await (await this.send(path, init)).json() as T;
  }

  #refusal(status: number, error: RemoteError | undefined): MergeError {
    if (error?.code === "token_missing" || error?.code === "token_wrong") {
      const fix =
        "give the token with --token or in LORA_LOOM_TOKEN; it lies in the file token of the server's data folder";
      return new MergeError(error.code, error.message, fix, "--token");
    }
    const blame = status < 500 ? "request" : "work";
    if (error) return new MergeError(error.code, error.message, error.fix, error.where, blame);
    const message = `${this.#base} answered ${status}, but not as this program's server does`;
    return new MergeError("not_a_server", message, "check --server", this.#base, blame);
  }
}

/**
 * Runs a recipe on a server: uploads what the server does not have, waits, and brings the result back to the recipe's
 * output, which appears complete or not at all.
 *
 * @throws {MergeError} as the server describes what went wrong; `server_unreachable`, `cancelled`
 */
export async function mergeOnServer(recipe: Recipe, run: ServerRun): Promise<RemoteSummary> {
  const connection = new Connection(run);
  // Refused before anything is uploaded.
  const staging = await stageDirectory(recipe.output.path, { force: run.force });
  try {
    const request = await requestOf(recipe, connection, run);
    const { id } = await connection.json<RemoteMerge>("/api/merges", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(request),
    });
    const result = await resultOf(id, connection, run);
    for (const file of result.files) await fetchFile(id, file, staging.path, connection);
    await staging.commit();
    return summaryOf(recipe, result, run.server);
  } catch (error) {
    await staging.discard();
    throw error;
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
    seconds: seconds as MergeSummary["seconds"],
    peak_rss_bytes,
    peak_gpu_bytes,
    quality,
    warnings,
    server,
  };
}

/** The recipe with what the server calls its parts. */
async function requestOf(recipe: Recipe, connection: Connection, run: ServerRun): Promise<unknown> {
  const { capture } = recipe.adapters[0]!;
  if (capture !== undefined && METHODS.get(recipe.method)?.needs.calibration) throw captureStaysHere(capture);
  const known = await connection.json<RemoteAdapter[]>("/api/adapters");
  const adapters = [];
  for (const adapter of recipe.adapters) {
    run.signal.throwIfAborted();
    const { name, weight, calibration } = adapter;
    const id = await uploadAdapter(adapter, known, connection, run);
    const text = calibration === undefined ? {} : { calibration: await uploadText(calibration, connection) };
    adapters.push({ id, name, weight, ...text });
  }
  const { method, parameters, refine, memory, include, exclude, output, seed, device } = recipe;
  const base = await modelOf(recipe, connection, run);
  return {
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

/** Brings an adapter to the server, unless it has the same files and reads them alike. */
async function uploadAdapter(
  adapter: Recipe["adapters"][number],
  known: readonly RemoteAdapter[],
  connection: Connection,
  run: ServerRun,
): Promise<string> {
  const { name } = adapter;
  const files = await filesOf(adapter);
  const reading = readingQuery(adapter);
  const hashes = new Map<string, string>();
  for (const file of files) hashes.set(basename(file), await sha256File(file));
  const same = known.find((one) =>
    one.files.length === files.length && one.files.every((file) => hashes.get(file.name) === file.sha256) &&
    readingQuery(one) === reading
  );
  if (same) return same.id;
  run.note(`uploading ${name}`);
  const [only] = files;
  const query = files.length === 1 ? basename(only!) : `${name.replaceAll(/[\p{C}/\\]/gu, "-")}.zip`;
  const path = `/api/adapters?name=${encodeURIComponent(query)}${reading}`;
  const { id } = await connection.json<{ id: string }>(path, {
    method: "POST",
    headers: { "content-type": files.length === 1 ? "application/octet-stream" : "application/zip" },
    body: files.length === 1 ? await openAsBlob(only!) : ReadableStream.from(zipped(files)),
    duplex: "half",
    signal: run.signal,
  });
  return id;
}

/** How an adapter is to be read, for an address. */
function readingQuery({ drop = [], expand = false }: Reading): string {
  const names = [...new Set(drop)].sort().map((name) => `&drop=${encodeURIComponent(name)}`);
  return names.join("") + (expand ? "&expand=true" : "");
}

async function filesOf(
  { path, drop, expand }: Reading & { readonly path: string },
): Promise<readonly string[]> {
  using adapter = await openAdapter(path, { drop, expand });
  return adapter.files;
}

/** A zip archive of files, made while it is sent. */
async function* zipped(files: readonly string[]): AsyncGenerator<Uint8Array> {
  const ready: Uint8Array[] = [];
  let failure: Error | undefined;
  const zip = new Zip((error, chunk) => {
    if (error) failure = error;
    else ready.push(chunk);
  });
  function* taken() {
    if (failure) throw failure;
    yield* ready.splice(0);
  }
  for (const path of files) {
    const entry = new ZipPassThrough(basename(path));
    zip.add(entry);
    const file = await open(path);
    try {
      let isLast = false;
      while (!isLast) {
        const { bytesRead, buffer } = await file.read(new Uint8Array(CHUNK_BYTES));
        isLast = bytesRead === 0;
        entry.push(buffer.subarray(0, bytesRead), isLast);
        yield* taken();
      }
    } finally {
      await file.close();
    }
  }
  zip.end();
  yield* taken();
}

async function uploadText(path: string, connection: Connection): Promise<string> {
  const { id } = await connection.json<{ id: string }>(
    `/api/calibrations?name=${encodeURIComponent(basename(path))}`,
    { method: "POST", headers: { "content-type": "text/plain" }, body: await readFile(path) },
  );
  return id;
}

/** Follows a merge to its end; cancels it when the signal fires. */
async function resultOf(id: string, connection: Connection, run: ServerRun): Promise<RemoteResult> {
  try {
    const merge = await follow(id, connection, run);
    if (merge.result) return merge.result;
    if (merge.error) {
      const { code, message, fix, where } = merge.error;
      throw new MergeError(code, message, fix, where, "work");
    }
    throw cancelled("it was cancelled on the server");
  } catch (error) {
    if (!run.signal.aborted) throw error;
    await connection.send(`/api/merges/${id}`, { method: "DELETE" }).catch(() => {});
    throw cancelled("the merge was cancelled before it was complete");
  }
}

function cancelled(message: string): MergeError {
  return new MergeError("cancelled", message, "run it again; nothing was written", "", "work");
}

const isOver = ({ state }: RemoteMerge) => state !== "queued" && state !== "running";

/** Reads events until the merge has ended, over as many streams as it takes. */
async function follow(id: string, connection: Connection, run: ServerRun): Promise<RemoteMerge> {
  let lastId: string | undefined;
  let failures = 0;
  while (true) {
    try {
      const headers: Record<string, string> = lastId === undefined ? {} : { "last-event-id": lastId };
      const response = await connection.send(`/api/merges/${id}/events`, { headers, signal: run.signal });
      for await (const event of eventsOf(response)) {
        failures = 0;
        lastId = event.id;
        if (event.type === "progress") run.onProgress(JSON.parse(event.data) as ProgressEvent);
        if (event.type !== "merge") continue;
        const merge = JSON.parse(event.data) as RemoteMerge;
        if (isOver(merge)) return merge;
        if (merge.waiting) run.note(`${merge.waiting} merges come before this one`);
      }
    } catch (error) {
      run.signal.throwIfAborted();
      if (error instanceof MergeError && error.code !== "server_unreachable") throw error;
      if (failures >= RETRY_SECONDS.length) throw error;
    }
    // The stream broke off, or the server was restarted: it goes on where it was.
    await pause(RETRY_SECONDS[Math.min(failures++, RETRY_SECONDS.length - 1)]!, run.signal);
  }
}

function pause(seconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", end);
      resolve();
    }, 1000 * seconds);
    signal.addEventListener("abort", end, { once: true });
  });
}

interface ServerEvent {
  readonly id: string;
  readonly type: string;
  readonly data: string;
}

/** The events of a stream as they come. */
async function* eventsOf(response: Response): AsyncGenerator<ServerEvent> {
  if (!response.body) return;
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of response.body) {
    text += decoder.decode(chunk, { stream: true });
    const blocks = text.split("\n\n");
    text = blocks.pop()!;
    for (const block of blocks) {
      const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(block)?.[1];
      const [id, data] = [field("id"), field("data")];
      if (id !== undefined && data !== undefined) yield { id, type: field("event") ?? "message", data };
    }
  }
}

/** Fetches one file of the result, and checks that it is what the server wrote. */
async function fetchFile(
  id: string,
  file: RemoteFile,
  folder: string,
  connection: Connection,
): Promise<void> {
  const { name, sha256 } = file;
  if (name !== basename(name) || name.startsWith(".")) {
    throw new MergeError(
      "invalid_name",
      `the server names a file ${JSON.stringify(name)}`,
      "check --server",
      name,
    );
  }
  const response = await connection.send(`/api/merges/${id}/files/${encodeURIComponent(name)}`);
  const hash = createHash("sha256");
  const target = await open(join(folder, name), "wx");
  try {
    for await (const chunk of response.body ?? []) {
      hash.update(chunk);
      await target.writeFile(chunk);
    }
  } finally {
    await target.close();
  }
  if (hash.digest("hex") === sha256) return;
  const message = `${name} arrived with another content than the server announced`;
  throw new MergeError(
    "transfer_failed",
    message,
    "run it again: the server keeps what it has",
    name,
    "work",
  );
}
