import fs from "node:fs";
import { promisify } from "node:util";
import { fileError, systemCode } from "./system_errors.ts";

const open = promisify(fs.open);
const sync = promisify(fs.fsync);

/** Windows has no such operation on folders and answers with one of these. */
const UNSUPPORTED = new Set(["EISDIR", "EPERM", "EACCES", "EINVAL", "ENOTSUP"]);

/** Makes the names in a folder durable: a rename is on the disk only after its folder is flushed. */
export async function syncDirectory(path: string): Promise<void> {
  let descriptor: number | undefined;
  try {
    descriptor = await open(path, "r");
    await sync(descriptor);
  } catch (error) {
    if (!UNSUPPORTED.has(systemCode(error) ?? "")) throw fileError(error, "flush", path);
  } finally {
    if (descriptor !== undefined) fs.closeSync(descriptor);
  }
}
