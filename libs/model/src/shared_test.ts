import { assertEquals } from "@std/assert";
import { Shared } from "./shared.ts";

Deno.test("Shared disposes its value once, when the last holder lets go", () => {
  let disposed = 0;
  const first = new Shared({ [Symbol.dispose]: () => void disposed++ });
  const second = first.hold();
  first[Symbol.dispose]();
  assertEquals(disposed, 0);
  second[Symbol.dispose]();
  assertEquals(disposed, 1);
});
