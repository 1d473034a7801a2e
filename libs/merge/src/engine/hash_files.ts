import { stat } from "node:fs/promises";
import { Worker } from "node:worker_threads";
import { sha256File } from "@lora-loom/formats";
import { MergeError, throwIfCancelled } from "../errors.ts";

/** Fewer bytes than this are hashed sooner than a thread starts. */
const LEAST_BYTES_FOR_THREAD = 64 * 2 ** 20;

/** What the hashing thread sends for each file. */
export type HashMessage = { readonly path: string; readonly sha256: string } | { readonly failure: string };

/** SHA-256 of each file in lower-case hex; many bytes are hashed in a thread of their own, beside the merge. */
export async function hashFiles(
  paths: readonly string[],
  signal?: AbortSignal,
): Promise<Map<string, string>> {
  const distinct = [...new Set(paths)];
  const sizes = await Promise.all(distinct.map(async (path) => (await stat(path)).size));
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  return bytes < LEAST_BYTES_FOR_THREAD
    ? await hashHere(distinct, signal)
    : await hashInThread(distinct, signal);
}

async function hashHere(paths: readonly string[], signal?: AbortSignal): Promise<Map<string, string>> {
  const hashes = new Map<string, string>();
  for (const path of paths) {
    throwIfCancelled(signal);
    hashes.set(path, await sha256File(path));
  }
  return hashes;
}

/** As {@linkcode hashFiles}, whatever the size. */
export async function hashInThread(
  paths: readonly string[],
  signal?: AbortSignal,
): Promise<Map<string, string>> {
  const hashes = new Map<string, string>();
  if (paths.length === 0) return hashes;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const worker = new Worker(new URL("./hash_worker.ts", import.meta.url), { workerData: paths });
  const cancel = () =>
    reject(new MergeError("cancelled", "hashing was cancelled", "run it again", "", "work"));
  signal?.addEventListener("abort", cancel, { once: true });
  worker.on("error", reject);
  worker.on("message", (message: HashMessage) => {
    if ("failure" in message) {
      return reject(new MergeError("io_error", message.failure, "check the disk", "", "work"));
    }
    hashes.set(message.path, message.sha256);
    if (hashes.size === paths.length) resolve();
  });
  try {
    await promise;
    return hashes;
  } finally {
    signal?.removeEventListener("abort", cancel);
    await worker.terminate();
  }
}
