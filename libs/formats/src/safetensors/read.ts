import { resolve } from "node:path";
import { RandomAccessFile } from "../io/random_access_file.ts";
import { FileTensor } from "../tensors/file_tensor.ts";
import type { TensorFile } from "../tensors/tensor_file.ts";
import { headerLength, parseHeader } from "./header.ts";
import { DEFAULT_LIMITS, type SafetensorsLimits } from "./limits.ts";

/** A safetensors file, or several as one. */
export type SafetensorsFile = TensorFile;

/**
 * Opens a safetensors file and checks its whole header; tensors are read later, in ranges.
 *
 * @throws {FormatError} one code for each way the file can be wrong; see the README's table
 */
export async function openSafetensors(
  path: string,
  limits: Partial<SafetensorsLimits> = {},
): Promise<SafetensorsFile> {
  const file = await RandomAccessFile.open(path, "read");
  try {
    return await readOpenFile(file, { ...DEFAULT_LIMITS, ...limits });
  } catch (error) {
    file.close();
    throw error;
  }
}

async function readOpenFile(file: RandomAccessFile, limits: SafetensorsLimits): Promise<SafetensorsFile> {
  const prefix = await file.read(0, Math.min(8, file.size));
  const length = headerLength(prefix, file.size, limits, file.path);
  const bufferStart = 8 + length;
  const header = parseHeader(await file.read(8, length), file.size - bufferStart, limits, file.path);
  const tensors = new Map(
    header.entries.map(({ name, dtype, shape, begin, end }) => {
      const place = { name, dtype, shape, start: bufferStart + begin, byteLength: end - begin };
      return [name, new FileTensor(file, place)];
    }),
  );
  const close = () => file.close();
  const path = resolve(file.path);
  return { path, tensors, metadata: header.metadata, files: [path], close, [Symbol.dispose]: close };
}
