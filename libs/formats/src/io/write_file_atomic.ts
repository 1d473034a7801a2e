import { promises as fs } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { randomSuffix, releaseSuffix } from "./partial_names.ts";
import { RandomAccessFile } from "./random_access_file.ts";
import { syncDirectory } from "./sync_directory.ts";
import { withFileErrors } from "./system_errors.ts";

/**
 * Writes a file so that at any moment, a kill included, its path holds either the old content or the new: into a
 * temporary file beside it, flushed, then renamed.
 */
export async function writeFileAtomic(path: string, content: Uint8Array | string): Promise<void> {
  const target = resolve(path);
  const suffix = randomSuffix();
  const temporary = join(dirname(target), `.${basename(target)}.partial-${suffix}`);
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  try {
    await writeNewFile(temporary, bytes);
    await withFileErrors("rename onto", target, () => fs.rename(temporary, target));
  } catch (error) {
    await fs.rm(temporary, { force: true }).catch(() => {});
    throw error;
  } finally {
    releaseSuffix(suffix);
  }
  await syncDirectory(dirname(target));
}

async function writeNewFile(path: string, bytes: Uint8Array): Promise<void> {
  const file = await RandomAccessFile.open(path, "create");
  try {
    await file.write(0, bytes);
    await file.sync();
  } finally {
    file.close();
  }
}
