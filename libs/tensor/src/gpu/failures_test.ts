import { assert, assertEquals, assertThrows } from "@std/assert";
import { TensorError } from "../errors.ts";
import { FailureLog } from "./failures.ts";

class GPUOutOfMemoryError {
  constructor(readonly message: string) {}
}

class GPUValidationError {
  constructor(readonly message: string) {}
}

/** A device that only reports errors. */
function fakeDevice() {
  const target = Object.assign(new EventTarget(), { lost: new Promise<never>(() => {}) });
  const fail = (error: { message: string }) => {
    const event = Object.assign(new Event("uncapturederror", { cancelable: true }), { error });
    target.dispatchEvent(event);
    return event;
  };
  return { device: target as unknown as GPUDevice, fail };
}

Deno.test("FailureLog keeps the first error, which caused the others", () => {
  const { device, fail } = fakeDevice();
  const log = new FailureLog(device);
  assert(fail(new GPUOutOfMemoryError("no memory left")).defaultPrevented, "Dawn would print it");
  fail(new GPUValidationError("buffer is invalid"));
  const error = assertThrows(() => log.throwIfAny(), TensorError, "no memory left");
  assertEquals(error.code, "out_of_memory");
  log.throwIfAny();
});
