import { promises as fs } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { randomSuffix, releaseSuffix } from "./partial_names.ts";
import { RandomAccessFile } from "./random_access_file.ts";
import { syncDirectory } from "./sync_directory.ts";
import { withFileErrors } from "./system_errors.ts";

/**
 * Writes a file so that at any moment, a kill included, its path holds either the old content or the new: into a
 * temporary file beside it, flushed, then renamed.
 *
 * @param content a text, bytes, or bytes in parts
 */
export async function writeFileAtomic(
  path: string,
  content: string | Uint8Array | readonly Uint8Array[],
): Promise<void> {
  const target = resolve(path);
  const suffix = randomSuffix();
  const temporary = join(dirname(target), `.${basename(target)}.partial-${suffix}`);
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  try {
    await writeNewFile(temporary, bytes instanceof Uint8Array ? [bytes] : bytes);
    await withFileErrors("rename onto", target, () => fs.rename(temporary, target));
  } catch (error) {
    await fs.rm(temporary, { force: true }).catch(() => {});
    throw error;
  } finally {
    releaseSuffix(suffix);
  }
  await syncDirectory(dirname(target));
}

async function writeNewFile(path: string, parts: readonly Uint8Array[]): Promise<void> {
  const file = await RandomAccessFile.open(path, "create");
  let offset = 0;
  try {
    for (const part of parts) {
      await file.write(offset, part);
      offset += part.length;
    }
    await file.sync();
  } finally {
    file.close();
  }
}
