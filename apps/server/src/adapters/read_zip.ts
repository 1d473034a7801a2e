import { Unzip, type UnzipFile, UnzipInflate } from "fflate";
import { ServerError } from "../errors.ts";
import type { Chunks, FileSink, UploadSink } from "./sink.ts";

/** Pieces in which the archive is unpacked: one may grow a thousandfold before its size is looked at. */
const PIECE_BYTES = 16 * 1024;
/** The record that ends every archive, and the most bytes that can follow its signature. */
const END_SIGNATURE = [0x50, 0x4b, 0x05, 0x06];
const END_BYTES = 22 + 0xffff;

function malformed(detail: string): ServerError {
  return new ServerError(
    400,
    "malformed_zip",
    `not a valid zip archive: ${detail}`,
    "pack the adapter's folder again, or send its files as a form",
    "body",
  );
}

/** What the archive says, in order. */
type Entry =
  | { readonly type: "begin"; readonly path: string }
  | { readonly type: "data"; readonly chunk: Uint8Array }
  | { readonly type: "end" };

/**
 * Unpacks a zip archive as it arrives; no file is written but through `sink`, which decides about every name.
 *
 * @throws {ServerError} `malformed_zip`, and what the sink throws
 */
export async function readZip(chunks: Chunks, sink: UploadSink): Promise<void> {
  const waiting: Entry[] = [];
  const unzip = openUnzip(waiting);
  const tail = new Tail(END_BYTES);
  const writer = new EntryWriter(sink);
  for await (const chunk of chunks) {
    tail.push(chunk);
    for (let start = 0; start < chunk.length; start += PIECE_BYTES) {
      push(unzip, chunk.subarray(start, start + PIECE_BYTES));
      await writer.take(waiting);
    }
  }
  if (!tail.includes(END_SIGNATURE)) throw malformed("its end is missing");
  // An ending that the parser did not expect shows as a file without its end.
  if (writer.isOpen) throw malformed("a file in it is cut short");
}

function openUnzip(waiting: Entry[]): Unzip {
  const unzip = new Unzip((file: UnzipFile) => {
    if (file.name.endsWith("/")) return;
    waiting.push({ type: "begin", path: file.name });
    file.ondata = (error, chunk, isLast) => {
      if (error) throw malformed(error.message);
      if (chunk.length > 0) waiting.push({ type: "data", chunk });
      if (isLast) waiting.push({ type: "end" });
    };
    file.start();
  });
  unzip.register(UnzipInflate);
  return unzip;
}

function push(unzip: Unzip, piece: Uint8Array): void {
  try {
    unzip.push(piece);
  } catch (error) {
    throw error instanceof ServerError ? error : malformed((error as Error).message);
  }
}

/** Brings entries to the sink, one file after the other. */
class EntryWriter {
  #file: FileSink | undefined;
  isOpen = false;

  constructor(private readonly sink: UploadSink) {}

  async take(entries: Entry[]): Promise<void> {
    for (const entry of entries.splice(0)) {
      if (entry.type === "begin") {
        this.#file = await this.sink.begin(entry.path);
        this.isOpen = true;
      } else if (entry.type === "data") await this.#file?.write(entry.chunk);
      else {
        await this.#file?.end();
        this.isOpen = false;
      }
    }
  }
}

/** The last bytes of a stream. */
class Tail {
  #bytes = new Uint8Array(0);

  constructor(private readonly size: number) {}

  push(chunk: Uint8Array): void {
    const joined = new Uint8Array(this.#bytes.length + chunk.length);
    joined.set(this.#bytes);
    joined.set(chunk, this.#bytes.length);
    this.#bytes = joined.slice(Math.max(0, joined.length - this.size));
  }

  includes(signature: readonly number[]): boolean {
    for (let start = this.#bytes.length - signature.length; start >= 0; start--) {
      if (signature.every((byte, offset) => this.#bytes[start + offset] === byte)) return true;
    }
    return false;
  }
}
