import { join } from "node:path";
import { Zip, ZipPassThrough } from "fflate";
import { OUTPUT_FORMATS, type OutputFormat } from "@lora-loom/formats";
import { shown } from "../adapters/upload_paths.ts";
import { removeIfThere } from "../data/durable.ts";
import { ServerError } from "../errors.ts";
import type { MergeResource } from "../merges/merge.ts";
import type { Services } from "./context.ts";
import { resultOf } from "./files.ts";

/** Sizes and offsets in a plain zip archive are 32-bit numbers. */
const MAX_BYTES = 0xffff_ffff - 1024 * 1024;
const CHUNK_BYTES = 256 * 1024;

/** A merge's name as the name of a folder. */
function archiveName(name: string): string {
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

async function* thenRemoved<T>(parts: AsyncIterable<T>, folder: string): AsyncGenerator<T> {
  try {
    yield* parts;
  } finally {
    await removeIfThere(folder);
  }
}

function checkFormat(format: string): OutputFormat {
  if ((OUTPUT_FORMATS as readonly string[]).includes(format)) return format as OutputFormat;
  const message = `there is no layout ${shown(format)}; known: ${OUTPUT_FORMATS.join(", ")}`;
  throw new ServerError(400, "unknown_format", message, "name one of them, or leave format out", "format");
}

function zipResponse(name: string, body: AsyncIterable<Uint8Array<ArrayBuffer>>): Response {
  return new Response(ReadableStream.from(body), {
    headers: {
      "content-type": "application/zip",
      "content-disposition": `attachment; filename="${name}.zip"`,
    },
  });
}

/**
 * Sends a result's folder as a zip archive.
 *
 * @param format the layout to send it in; null as it is
 * @throws {ServerError} `not_done`, `archive_too_large`, `unknown_format`; what the conversion throws
 */
export async function archiveResponse(
  merge: MergeResource,
  format: string | null,
  services: Services,
): Promise<Response> {
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
  const name = archiveName(merge.name);
  const to = format === null ? undefined : checkFormat(format);
  if (to === undefined || to === (merge.request.format ?? "peft")) {
    return zipResponse(
      name,
      archiveBytes(name, services.results.target(merge.id), files.map((file) => file.name)),
    );
  }
  const folder = await services.convert(merge, to);
  const names = [...Deno.readDirSync(folder)].map((entry) => entry.name).sort();
  return zipResponse(`${name}-${to}`, thenRemoved(archiveBytes(`${name}-${to}`, folder, names), folder));
}
