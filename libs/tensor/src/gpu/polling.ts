/**
 * Dawn asks for the end of GPU work by calling itself through `setImmediate` for as long as a promise is pending. Unchecked
 * that keeps one CPU core busy, which on a software driver is half of the "GPU", and under Deno the garbage it leaves
 * behind stalls the process for up to a second at a time. So Dawn's calls, and only those, are spaced out: by a millisecond where the
 * processor is the GPU, and on hardware by a share of the time that was waited already.
 */

/**
 * Polls that follow each other at once, for work that takes microseconds. Each makes a native function with a finalizer; with a hundred a
 * wait, the runtime stops everything for seconds now and then to run thousands of these.
 */
const EAGER_POLLS = 2;

/** On hardware, the gap between polls: a share of the time that was waited, and at least so many milliseconds. */
const GAP = { share: 0.15, least: 0.1 };
/** Milliseconds of a wait after which hardware, too, is polled once a millisecond. */
const LONG_WAIT = 25;

type Immediate = (callback: (...args: unknown[]) => void, ...args: unknown[]) => unknown;

/** Dawn's callbacks are anonymous native functions without arguments. */
function isNative(callback: (...args: unknown[]) => void): boolean {
  return callback.name === "" && Function.prototype.toString.call(callback).includes("[native code]");
}

let installed = false;
let polls = 0;
let began = 0;
let spins = false;

/**
 * Says that a wait begins: its first polls follow each other at once.
 *
 * @param onHardware whether the work is done elsewhere than on this processor, which may then be busy with short gaps between polls
 */
export function beginWait(onHardware: boolean): void {
  polls = 0;
  began = performance.now();
  spins = onHardware;
}

/** Replaces `setImmediate` by one that lets some time pass between Dawn's polls; other callers notice nothing. */
export function spaceOutPolling(): void {
  if (installed) return;
  installed = true;
  const scope = globalThis as unknown as { setImmediate: Immediate };
  const immediate = scope.setImmediate;
  const spaced: Immediate = (callback, ...args) => {
    if (args.length > 0 || !isNative(callback)) return immediate(callback, ...args);
    if (++polls <= EAGER_POLLS) return immediate(callback);
    const now = performance.now();
    const waited = now - began;
    if (!spins || waited > LONG_WAIT) return setTimeout(callback, 1);
    const next = now + Math.max(GAP.least, GAP.share * waited);
    // No timer is as fine as that.
    const turn = (): unknown => performance.now() >= next ? callback() : immediate(turn);
    return immediate(turn);
  };
  // Whatever else hangs on the function, such as Node's promisified form, stays.
  scope.setImmediate = Object.assign(spaced, immediate);
}
