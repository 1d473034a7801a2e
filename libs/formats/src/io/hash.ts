import { createHash } from "node:crypto";
import { RandomAccessFile } from "./random_access_file.ts";

const CHUNK_BYTES = 4 << 20;

/** The SHA-256 of a file in lower-case hex, read in bounded pieces. */
export async function sha256File(path: string): Promise<string> {
  const hash = createHash("sha256");
  const file = await RandomAccessFile.open(path, "read");
  try {
    for (let position = 0; position < file.size; position += CHUNK_BYTES) {
      hash.update(await file.read(position, Math.min(CHUNK_BYTES, file.size - position)));
    }
  } finally {
    file.close();
  }
  return hash.digest("hex");
}
