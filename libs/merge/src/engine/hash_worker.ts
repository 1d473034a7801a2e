/** A thread that hashes files one after another and sends each hash. */
import { parentPort, workerData } from "node:worker_threads";
import { sha256File } from "@lora-loom/formats";
import type { HashMessage } from "./hash_files.ts";

const send = (message: HashMessage) => parentPort!.postMessage(message);

try {
  for (const path of workerData as readonly string[]) send({ path, sha256: await sha256File(path) });
} catch (error) {
  send({ failure: (error as Error).message });
}
