import { randomBytes } from "node:crypto";
import process from "node:process";

const OWNER_AND_RANDOM = /^(\d+)-[0-9a-f]{12}$/;
/** What this process has in its hands now: its own names are stale only once they are forgotten here. */
const held = new Set<string>();

/** A suffix `<process id>-<random>` for temporary names, so that a later run can tell whose they were. */
export function randomSuffix(): string {
  const suffix = `${process.pid}-${randomBytes(6).toString("hex")}`;
  held.add(suffix);
  return suffix;
}

/** Declares a suffix of {@linkcode randomSuffix} no longer in use. */
export function releaseSuffix(suffix: string): void {
  held.delete(suffix);
}

/** Whether the process that made this suffix is gone, so that what bears it was left behind by a killed run. */
export function isAbandoned(suffix: string): boolean {
  const match = OWNER_AND_RANDOM.exec(suffix);
  if (!match) return false;
  const owner = Number(match[1]);
  // A container often gives the same process id to each run, hence the second look at our own number.
  return owner === process.pid ? !held.has(suffix) : !isRunning(owner);
}

/** Whether this is such a suffix of a process that runs, this one included. */
export function isHeld(suffix: string): boolean {
  return OWNER_AND_RANDOM.test(suffix) && !isAbandoned(suffix);
}

function isRunning(processId: number): boolean {
  try {
    process.kill(processId, 0);
    return true;
  } catch (error) {
    // Anything but "no such process", a refused permission for one, may be a process that runs.
    return (error as { code?: unknown }).code !== "ESRCH";
  }
}
