import { dirname } from "node:path";

/** Windows has no such operation on folders. */
async function syncFolder(path: string): Promise<void> {
  if (Deno.build.os === "windows") return;
  using folder = await Deno.open(path);
  await folder.sync();
}

/** Renames so that the new name, and all names inside a renamed folder, survive a power failure. */
export async function renameDurably(from: string, to: string): Promise<void> {
  if ((await Deno.stat(from)).isDirectory) await syncFolder(from);
  await Deno.rename(from, to);
  await syncFolder(dirname(to));
}

/** Removes a file or folder; one that is not there is fine. */
export async function removeIfThere(path: string): Promise<void> {
  try {
    await Deno.remove(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Whether something is there. */
export async function exists(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
