import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Runs `body` with a folder of its own, removed afterwards. */
export async function inTemporaryFolder<T>(body: (folder: string) => T | Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), "loom-test-"));
  try {
    return await body(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}
