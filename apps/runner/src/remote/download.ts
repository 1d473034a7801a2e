import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { basename, join } from "node:path";
import { MergeError } from "@lora-loom/merge";
import type { Connection } from "./connection.ts";
import type { RemoteFile } from "./remote_merge.ts";

/** Fetches one file of the result, and checks that it is what the server wrote. */
export async function fetchFile(
  id: string,
  file: RemoteFile,
  folder: string,
  connection: Connection,
): Promise<void> {
  const { name, sha256 } = file;
  if (name !== basename(name) || name.startsWith(".")) {
    throw new MergeError(
      "invalid_name",
      `the server names a file ${JSON.stringify(name)}`,
      "check --server",
      name,
    );
  }
  const response = await connection.send(`/api/merges/${id}/files/${encodeURIComponent(name)}`);
  const hash = createHash("sha256");
  const target = await open(join(folder, name), "wx");
  try {
    for await (const chunk of response.body ?? []) {
      hash.update(chunk);
      await target.writeFile(chunk);
    }
  } finally {
    await target.close();
  }
  if (hash.digest("hex") === sha256) return;
  const message = `${name} arrived with another content than the server announced`;
  throw new MergeError(
    "transfer_failed",
    message,
    "run it again: the server keeps what it has",
    name,
    "work",
  );
}
