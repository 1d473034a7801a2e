import { assertEquals } from "@std/assert";
import { type ProgressEvent, ProgressMeter } from "./progress.ts";

/** A meter whose clock the test moves, in seconds. */
function meterOf(modules: number, work: number) {
  const events: ProgressEvent[] = [];
  let now = 0;
  const meter = new ProgressMeter(modules, work, (event) => events.push(event), () => 1000 * now);
  return { meter, events, at: (seconds: number) => now = seconds };
}

Deno.test("ProgressMeter estimates the time left from the bytes that are done", () => {
  const { meter, events, at } = meterOf(2, 400);
  at(3);
  assertEquals(meter.module("a", 100), 3);
  at(5);
  assertEquals(meter.module("b", 300), 2);
  assertEquals(events.map((event) => event.type === "module" && event.remaining), [9, 0]);
});

Deno.test("ProgressMeter does not count the stages before the modules as work on them", () => {
  const { meter, events, at } = meterOf(2, 200);
  at(60);
  meter.stage({ stage: "agreement", done: 1, total: 1 });
  at(62);
  assertEquals(meter.module("a", 100), 2);
  const last = events.at(-1)!;
  assertEquals(last.type === "module" && [last.elapsed, last.remaining], [62, 2]);
});

Deno.test("ProgressMeter tells what is left of stages once one was timed, and begins anew with others", () => {
  const { meter, events, at } = meterOf(1, 1);
  const steps: [second: number, stage: string, done: number, total: number][] = [
    [1, "answers of a", 0, 2],
    [4, "answers of b", 1, 2],
    [10, "layer 0", 1, 4],
    [12, "layer 1", 2, 4],
    [16, "layer 2", 3, 4],
    [20, "again: layer 0", 1, 4],
  ];
  for (const [second, stage, done, total] of steps) {
    at(second);
    meter.stage({ stage, done, total });
  }
  const left = events.map((event) => event.type === "stage" ? event.remaining : undefined);
  assertEquals(left, [null, 3, null, 4, 3, null]);
});
