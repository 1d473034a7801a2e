import type { DatabaseSync } from "node:sqlite";
import { ServerError } from "../errors.ts";

const NAMES = { adapter: "adapter", calibration: "text" };

/**
 * Throws where a merge that waits or runs still needs an input.
 *
 * @throws {ServerError} `adapter_in_use`, `calibration_in_use`
 */
export function refuseIfInUse(database: DatabaseSync, id: string, kind: keyof typeof NAMES): void {
  const user = database.prepare(
    "SELECT merge FROM inputs JOIN merges ON merges.id = merge WHERE input = ? AND state IN ('queued', 'running')",
  ).get(id) as { merge: string } | undefined;
  if (!user) return;
  throw new ServerError(
    409,
    `${kind}_in_use`,
    `the merge ${user.merge} still needs this ${NAMES[kind]}`,
    `wait until it has ended, or cancel it with DELETE /api/merges/${user.merge}`,
    id,
  );
}
