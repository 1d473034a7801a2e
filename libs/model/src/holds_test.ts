import { assertEquals, assertRejects } from "@std/assert";
import { Holds } from "./holds.ts";

/** Something to hold that counts how often it was made and disposed. */
function counted() {
  const counts = { made: 0, disposed: 0 };
  const make = () => {
    counts.made++;
    return Promise.resolve({ [Symbol.dispose]: () => void counts.disposed++ });
  };
  return { counts, make };
}

Deno.test("Holds.hold() makes a thing for its first holder and disposes it after the last", async () => {
  const holds = new Holds<Disposable>();
  const { counts, make } = counted();
  const [first, second] = await Promise.all([holds.hold("a", make), holds.hold("a", make)]);
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  assertEquals([counts, holds.get("a") !== undefined], [{ made: 1, disposed: 0 }, true]);
  second[Symbol.dispose]();
  assertEquals([counts, holds.get("a")], [{ made: 1, disposed: 1 }, undefined]);
  using _again = await holds.hold("a", make);
  assertEquals(counts.made, 2);
});

Deno.test("Holds.hold() forgets what could not be made", async () => {
  const holds = new Holds<Disposable>();
  const { counts, make } = counted();
  await assertRejects(() => holds.hold("a", () => Promise.reject(new Error("no"))), Error, "no");
  using _held = await holds.hold("a", make);
  assertEquals(counts.made, 1);
});

Deno.test("Holds.clear() disposes what is held still, and later letting go does nothing", async () => {
  const holds = new Holds<Disposable>();
  const { counts, make } = counted();
  const held = await holds.hold("a", make);
  holds.clear();
  held[Symbol.dispose]();
  assertEquals(counts, { made: 1, disposed: 1 });
});
