import { assertEquals, assertLess } from "@std/assert";
import { beginWait, spaceOutPolling } from "./polling.ts";

/** Schedules `body` again and again for some milliseconds, and counts how often it ran. */
async function countRuns(milliseconds: number, wrap: (body: () => void) => () => void): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>();
  const end = performance.now() + milliseconds;
  let runs = 0;
  const again = wrap(() => {
    runs++;
    if (performance.now() < end) setImmediate(again);
    else resolve(runs);
  });
  setImmediate(again);
  return await promise;
}

Deno.test("spaceOutPolling() lets time pass between native callbacks, and leaves others alone", async () => {
  spaceOutPolling();
  spaceOutPolling();
  // A proxy of an anonymous function prints like a native one, as Dawn's callbacks do.
  const countPolls = (onHardware: boolean) => {
    beginWait(onHardware);
    return countRuns(40, (body) => new Proxy(body, {}));
  };
  const ordinary = await countRuns(40, (body) => body);
  for (const polls of [await countPolls(false), await countPolls(true)]) {
    assertLess(polls, 20 + 41);
    assertLess(3 * polls, ordinary);
  }
});

Deno.test("setImmediate() still passes arguments on after spaceOutPolling()", async () => {
  spaceOutPolling();
  const { promise, resolve } = Promise.withResolvers<number[]>();
  setImmediate((...values: number[]) => resolve(values), 1, 2);
  assertEquals(await promise, [1, 2]);
});
