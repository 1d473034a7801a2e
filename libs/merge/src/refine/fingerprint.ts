import { createHash } from "node:crypto";
import { VERSIONS } from "../versions.ts";
import type { RefineRequest } from "./request.ts";

/** A hash of everything that decides about the bytes of the result. */
export function fingerprintOf({ start, tasks, settings, seed, device, model }: RefineRequest): string {
  const hash = createHash("sha256");
  const { checkpointEvery: _, ...deciding } = settings;
  hash.update(JSON.stringify([deciding, seed, device.info, VERSIONS, model.layerReads]));
  for (const [module, { a, b }] of start) {
    hash.update(JSON.stringify([module, a.shape, b.shape]));
    for (const { values } of [a, b]) {
      hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    }
  }
  for (const { name, weight, sequences, heldOut } of tasks) {
    hash.update(JSON.stringify([name, weight, sequences.map(({ answerStart }) => answerStart)]));
    for (const tokens of [...sequences.map(({ tokens }) => tokens), ...heldOut.prompts, ...heldOut.answers]) {
      hash.update(`|${tokens.join()}`);
    }
  }
  return hash.digest("hex");
}
