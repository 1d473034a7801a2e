import { Busboy, type BusboyFileStream, type BusboyInstance } from "@fastify/busboy";
import { once } from "node:events";
import { ServerError } from "../errors.ts";
import type { Chunks, UploadSink } from "./sink.ts";

const MAX_FIELDS = 16;
const MAX_FIELD_BYTES = 1024;

function malformed(detail: string): ServerError {
  return new ServerError(
    400,
    "malformed_form",
    `not valid multipart/form-data: ${detail}`,
    "send the files as a browser does, for example curl -F file=@adapter_model.safetensors",
    "body",
  );
}

/**
 * Reads multipart/form-data as it arrives: files go to `sink` chunk by chunk, nothing is collected in memory.
 *
 * @returns the form's other fields
 * @throws {ServerError} `malformed_form`, and what the sink throws
 */
export async function readForm(
  chunks: Chunks,
  contentType: string,
  sink: UploadSink,
): Promise<ReadonlyMap<string, string>> {
  const fields = new Map<string, string>();
  const files: Promise<void>[] = [];
  const streams: BusboyFileStream[] = [];
  const failure = Promise.withResolvers<never>();
  const over = new AbortController();
  const parser = openParser(contentType);
  parser.on("field", (name, value) => fields.set(name, value));
  parser.on("file", (_field, stream, path) => {
    streams.push(stream);
    // A body that ends inside a file is also an error of that file, which nobody may be reading yet; the parser's own counts.
    stream.on("error", () => {});
    files.push(pass(stream, path ?? "", sink).catch(failure.reject));
  });
  parser.on(
    "error",
    (error) => failure.reject(malformed(error instanceof Error ? error.message : String(error))),
  );
  try {
    // Whatever fails, fails everything at once: nobody waits for a parser that waits for a file.
    await Promise.race([feed(parser, chunks, over.signal).then(() => Promise.all(files)), failure.promise]);
    return fields;
  } finally {
    over.abort();
    parser.destroy();
    for (const stream of streams) stream.destroy();
    await Promise.allSettled(files);
  }
}

async function feed(parser: BusboyInstance, chunks: Chunks, signal: AbortSignal): Promise<void> {
  for await (const chunk of chunks) {
    if (!parser.write(chunk)) await once(parser, "drain", { signal });
  }
  parser.end();
  await once(parser, "finish", { signal });
}

function openParser(contentType: string) {
  try {
    return new Busboy({
      headers: { "content-type": contentType },
      // A path in a name must be seen to be refused.
      preservePath: true,
      limits: { fields: MAX_FIELDS, fieldSize: MAX_FIELD_BYTES, headerPairs: 32, headerSize: 16 * 1024 },
    });
  } catch (error) {
    throw malformed((error as Error).message);
  }
}

async function pass(stream: BusboyFileStream, path: string, sink: UploadSink): Promise<void> {
  const file = await sink.begin(path);
  if (!file) {
    stream.resume();
    return;
  }
  for await (const chunk of stream) await file.write(chunk as Uint8Array);
  await file.end();
}
