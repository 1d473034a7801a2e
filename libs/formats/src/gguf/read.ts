import { resolve } from "node:path";
import { FormatError } from "../errors.ts";
import { RandomAccessFile } from "../io/random_access_file.ts";
import { FileTensor } from "../tensors/file_tensor.ts";
import type { TensorFile } from "../tensors/tensor_file.ts";
import { damaged, OutOfBytes } from "./cursor.ts";
import { type GgufHeader, parseHeader } from "./header.ts";
import { DEFAULT_LIMITS, type GgufLimits } from "./limits.ts";
import type { GgufValue } from "./types.ts";

/** A GGUF file: tensors by name and the header's values. */
export interface GgufFile extends TensorFile {
  readonly values: ReadonlyMap<string, GgufValue>;
}

/** The header's length is not written anywhere; this many bytes hold that of an adapter. */
const FIRST_READ = 1 << 18;

/**
 * Opens a GGUF file and checks its whole header; tensors are read later, in ranges. Shapes are row-major, the reverse
 * of ggml's.
 *
 * @throws {FormatError} see {@linkcode parseHeader}
 */
export async function openGguf(path: string, limits: Partial<GgufLimits> = {}): Promise<GgufFile> {
  const file = await RandomAccessFile.open(path, "read");
  try {
    const { values, entries } = await readHeader(file, { ...DEFAULT_LIMITS, ...limits });
    const tensors = new Map(entries.map((entry) => [entry.name, new FileTensor(file, entry)]));
    const close = () => file.close();
    const absolute = resolve(file.path);
    return {
      path: absolute,
      tensors,
      values,
      metadata: textsOf(values),
      files: [absolute],
      close,
      [Symbol.dispose]: close,
    };
  } catch (error) {
    file.close();
    throw error;
  }
}

async function readHeader(file: RandomAccessFile, limits: GgufLimits): Promise<GgufHeader> {
  const most = Math.min(file.size, limits.maxHeaderBytes);
  for (let length = Math.min(FIRST_READ, most);; length = Math.min(2 * length, most)) {
    try {
      return parseHeader(await file.read(0, length), file.size, limits, file.path);
    } catch (error) {
      if (!(error instanceof OutOfBytes)) throw error;
      if (length === most) throw tooLong(file, limits);
    }
  }
}

function tooLong(file: RandomAccessFile, limits: GgufLimits): FormatError {
  return file.size > limits.maxHeaderBytes
    ? damaged("header_too_large", `the header has more than ${limits.maxHeaderBytes} bytes`, file.path)
    : damaged("metadata_incomplete_buffer", "the file ends inside its header", file.path);
}

function textsOf(values: ReadonlyMap<string, GgufValue>): Record<string, string> {
  return Object.freeze(
    Object.fromEntries([...values].filter((pair): pair is [string, string] => typeof pair[1] === "string")),
  );
}
