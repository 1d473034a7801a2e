import process from "node:process";
import type { Terminal } from "./command.ts";

/** Clears the current line of a terminal. */
const CLEAR_LINE = "\r\x1b[K";

/** Standard output and error of this process. */
export function processTerminal(quiet: boolean, signal: AbortSignal): Terminal {
  const isInteractive = process.stderr.isTTY === true && !quiet;
  let hasStatus = false;
  function clearStatus(): void {
    if (hasStatus) process.stderr.write(CLEAR_LINE);
    hasStatus = false;
  }
  return {
    isInteractive,
    signal,
    out(line) {
      clearStatus();
      console.log(line);
    },
    note(line) {
      clearStatus();
      if (!quiet) console.error(line);
    },
    status(line) {
      if (!isInteractive) return;
      const width = (process.stderr.columns ?? 80) - 1;
      process.stderr.write(`${CLEAR_LINE}${line.slice(0, width)}`);
      hasStatus = true;
    },
  };
}

/** One request arrives more than once where programs in between pass it on: within so many milliseconds it is the same. */
const SAME_REQUEST = 200;

/**
 * A signal that fires on the first Ctrl-C, request to terminate or closing of the terminal, so that work can be undone; a second one ends
 * the process at once, as users expect.
 */
export function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  let first = 0;
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(name, () => {
      if (!controller.signal.aborted) {
        first = performance.now();
        controller.abort();
      } else if (performance.now() - first > SAME_REQUEST) process.exit(1);
    });
  }
  return controller.signal;
}
