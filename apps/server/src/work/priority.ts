import { setPriority } from "node:os";

/** What Unix calls niceness: how far this thread stands back behind others that want the processor. */
const NICENESS = 5;

/**
 * Lets the thread that serves requests go before this one and those that it starts, such as a software GPU's. Only Linux
 * has priorities of single threads; elsewhere this would slow down the server itself.
 */
export function standBack(): void {
  if (Deno.build.os === "linux") setPriority(NICENESS);
}
