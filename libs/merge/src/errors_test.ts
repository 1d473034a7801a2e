import { assertEquals } from "@std/assert";
import { describeError, throwIfCancelled } from "./errors.ts";

Deno.test("describeError() calls it cancelled when a library stopped at the caller's signal", () => {
  const controller = new AbortController();
  controller.abort();
  const thrownBy = (body: () => void) => {
    try {
      body();
    } catch (error) {
      return describeError(error);
    }
    return undefined;
  };
  const bySignal = thrownBy(() => controller.signal.throwIfAborted());
  assertEquals([bySignal?.code, bySignal?.blame], ["cancelled", "work"]);
  assertEquals(thrownBy(() => throwIfCancelled(controller.signal)), bySignal);
});
