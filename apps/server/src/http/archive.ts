import { join } from "node:path";
import { Zip, ZipPassThrough } from "fflate";
import { ServerError } from "../errors.ts";
import type { MergeResource } from "../merges/merge.ts";
import { resultOf } from "./files.ts";

/** Sizes and offsets in a plain zip archive are 32-bit numbers. */
const MAX_BYTES = 0xffff_ffff - 1024 * 1024;
const CHUNK_BYTES = 256 * 1024;

/** A merge's name as the name of a folder. */
export function archiveName(name: string): string {
  return name.normalize("NFKD").replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[-.]+|[-.]+$/g, "").slice(
    0,
    80,
  ) || "merged";
}

/** The bytes of an archive, made while they are sent. Weights are stored as they are: they do not shrink. */
async function* archiveBytes(
  name: string,
  folder: string,
  files: readonly string[],
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const ready: Uint8Array<ArrayBuffer>[] = [];
  let failure: Error | undefined;
  const zip = new Zip((error, chunk) => {
    if (error) failure = error;
    else ready.push(chunk as Uint8Array<ArrayBuffer>);
  });
  function* taken() {
    if (failure) throw failure;
    yield* ready.splice(0);
  }
  for (const file of files) {
    const entry = new ZipPassThrough(`${name}/${file}`);
    zip.add(entry);
    using source = await Deno.open(join(folder, file));
    let isLast = false;
    while (!isLast) {
      const buffer = new Uint8Array(CHUNK_BYTES);
      const size = await source.read(buffer);
      isLast = size === null;
      entry.push(buffer.subarray(0, size ?? 0), isLast);
      yield* taken();
    }
  }
  zip.end();
  yield* taken();
}

/**
 * Sends a result's folder as a zip archive.
 *
 * @throws {ServerError} `not_done`, `archive_too_large`
 */
export function archiveResponse(name: string, merge: MergeResource, folder: string): Response {
  const { files, bytes } = resultOf(merge);
  if (bytes > MAX_BYTES) {
    throw new ServerError(
      409,
      "archive_too_large",
      `the result has ${bytes} bytes, more than a zip archive holds`,
      `fetch the files one by one from /api/merges/${merge.id}/files/`,
      merge.id,
    );
  }
  const body = ReadableStream.from(archiveBytes(name, folder, files.map((file) => file.name)));
  return new Response(body, {
    headers: {
      "content-type": "application/zip",
      "content-disposition": `attachment; filename="${name}.zip"`,
    },
  });
}
