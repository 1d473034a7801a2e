/**
 * Dawn asks for the end of GPU work by calling itself through `setImmediate` for as long as a promise is pending. Unchecked
 * that keeps one CPU core busy, which on a software driver is half of the "GPU", and under Deno the garbage it leaves
 * behind stalls the process for up to a second at a time. So Dawn's calls, and only those, are spaced out.
 */

/**
 * Polls that follow each other at once: for work that takes microseconds on a software driver, which needs the processor itself, and
 * for about two milliseconds where the work is a GPU's and every wait would cost one.
 */
export const EAGER_POLLS = { software: 20, hardware: 300 };

type Immediate = (callback: (...args: unknown[]) => void, ...args: unknown[]) => unknown;

/** Dawn's callbacks are anonymous native functions without arguments. */
function isNative(callback: (...args: unknown[]) => void): boolean {
  return callback.name === "" && Function.prototype.toString.call(callback).includes("[native code]");
}

let installed = false;
let eagerPolls = 0;

/** Says that a wait begins: its first polls follow each other at once. */
export function beginWait(eager = EAGER_POLLS.software): void {
  eagerPolls = eager;
}

/** Replaces `setImmediate` by one that lets a millisecond pass between Dawn's polls; other callers notice nothing. */
export function spaceOutPolling(): void {
  if (installed) return;
  installed = true;
  const scope = globalThis as unknown as { setImmediate: Immediate };
  const immediate = scope.setImmediate;
  const spaced: Immediate = (callback, ...args) => {
    if (args.length > 0 || !isNative(callback)) return immediate(callback, ...args);
    return eagerPolls-- > 0 ? immediate(callback) : setTimeout(callback, 1);
  };
  // Whatever else hangs on the function, such as Node's promisified form, stays.
  scope.setImmediate = Object.assign(spaced, immediate);
}
