/**
 * Dawn asks for the end of GPU work by calling itself through `setImmediate` for as long as a promise is pending. Unchecked
 * that keeps one CPU core busy, which on a software driver is half of the "GPU", and under Deno the garbage it leaves
 * behind stalls the process for up to a second at a time. So Dawn's calls, and only those, are spaced out.
 */

/**
 * Polls that follow each other at once, for work that takes microseconds. Each makes a native function with a finalizer; with a hundred a
 * wait, the runtime stops everything for seconds now and then to run thousands of these.
 */
const EAGER_POLLS = 2;

type Immediate = (callback: (...args: unknown[]) => void, ...args: unknown[]) => unknown;

/** Dawn's callbacks are anonymous native functions without arguments. */
function isNative(callback: (...args: unknown[]) => void): boolean {
  return callback.name === "" && Function.prototype.toString.call(callback).includes("[native code]");
}

let installed = false;
let polls = 0;

/** Says that a wait begins: its first polls follow each other at once. */
export function beginWait(): void {
  polls = 0;
}

/** Replaces `setImmediate` by one that lets a millisecond pass between Dawn's polls; other callers notice nothing. */
export function spaceOutPolling(): void {
  if (installed) return;
  installed = true;
  const scope = globalThis as unknown as { setImmediate: Immediate };
  const immediate = scope.setImmediate;
  const spaced: Immediate = (callback, ...args) => {
    if (args.length > 0 || !isNative(callback)) return immediate(callback, ...args);
    return ++polls <= EAGER_POLLS ? immediate(callback) : setTimeout(callback, 1);
  };
  // Whatever else hangs on the function, such as Node's promisified form, stays.
  scope.setImmediate = Object.assign(spaced, immediate);
}
