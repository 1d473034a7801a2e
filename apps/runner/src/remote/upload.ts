import { Zip, ZipPassThrough } from "fflate";
import { openAsBlob } from "node:fs";
import { open, readFile } from "node:fs/promises";
import { basename } from "node:path";
import { openAdapter, sha256File } from "@lora-loom/formats";
import { MergeError, type Recipe } from "@lora-loom/merge";
import type { Connection } from "./connection.ts";
import type { RemoteFile, ServerRun } from "./remote_merge.ts";

const CHUNK_BYTES = 256 * 1024;

/** What a recipe can say of how an adapter is read. */
type Reading = Pick<Recipe["adapters"][number], "drop" | "expand">;

/** An adapter that the server has. */
export interface RemoteAdapter extends Reading {
  readonly id: string;
  readonly files: readonly RemoteFile[];
}

/** What the server calls something that was uploaded. */
export interface Uploaded {
  readonly id: string;
  /** How its messages name it. */
  readonly shown: string;
}

/** Brings an adapter to the server, unless it has the same files and reads them alike. */
export async function uploadAdapter(
  adapter: Recipe["adapters"][number],
  known: readonly RemoteAdapter[],
  connection: Connection,
  run: ServerRun,
): Promise<Uploaded> {
  const { name } = adapter;
  const files = await filesOf(adapter);
  const reading = readingQuery(adapter);
  const hashes = new Map<string, string>();
  for (const file of files) hashes.set(basename(file), await sha256File(file));
  const same = known.find((one) =>
    one.files.length === files.length && one.files.every((file) => hashes.get(file.name) === file.sha256) &&
    readingQuery(one) === reading
  );
  const [only] = files;
  const uploaded = (id: string) => ({ id, shown: files.length === 1 ? `${id}/${basename(only!)}` : id });
  if (same) return uploaded(same.id);
  run.note(`uploading ${name}`);
  const query = files.length === 1 ? basename(only!) : `${name.replaceAll(/[\p{C}/\\]/gu, "-")}.zip`;
  const path = `/api/adapters?name=${encodeURIComponent(query)}${reading}`;
  const { id } = await connection.json<{ id: string }>(path, {
    method: "POST",
    headers: { "content-type": files.length === 1 ? "application/octet-stream" : "application/zip" },
    body: files.length === 1 ? await openAsBlob(only!) : ReadableStream.from(zipped(files)),
    duplex: "half",
    signal: run.signal,
  });
  return uploaded(id);
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

/**
 * Brings a text to the server, and gives its id.
 *
 * @throws {MergeError} `missing_file`; as the server describes what is wrong with the text, with the file and line here
 */
export async function uploadText(path: string, connection: Connection): Promise<string> {
  const body = await readCalibration(path);
  try {
    const { id } = await connection.json<{ id: string }>(
      `/api/calibrations?name=${encodeURIComponent(basename(path))}`,
      { method: "POST", headers: { "content-type": "text/plain" }, body },
    );
    return id;
  } catch (error) {
    // What the server says of a line or of the whole text it says of an upload without a place.
    const place = error instanceof MergeError ? /^(?:line (\d+)|body)?$/.exec(error.where) : null;
    if (!(error instanceof MergeError) || !place) throw error;
    const [, line] = place;
    const { code, message, fix, blame } = error;
    throw new MergeError(code, message, fix, line === undefined ? path : `${path}:${line}`, blame);
  }
}

async function readCalibration(path: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return new Uint8Array(await readFile(path));
  } catch (error) {
    throw new MergeError(
      "missing_file",
      `${path} could not be read: ${(error as Error).message}`,
      "correct calibration: in the recipe, or put the file there",
      path,
    );
  }
}
