import { assertEquals, assertThrows } from "@std/assert";
import { completeLock, findMissing, type LockFile } from "./lock.ts";

const LOCK: LockFile = {
  packages: {
    "": { dependencies: { nx: "2.0.0" } },
    "node_modules/nx": {
      version: "2.0.0",
      dev: true,
      optionalDependencies: {
        "@nx/nx-linux-x64-gnu": "2.0.0",
        "@nx/nx-linux-x64-musl": "2.0.0",
        nested: "1.0.0",
      },
    },
    "node_modules/@nx/nx-linux-x64-gnu": { version: "2.0.0", os: ["linux"], cpu: ["x64"], libc: ["glibc"] },
    "node_modules/nx/node_modules/nested": { version: "1.0.0" },
  },
};

Deno.test("findMissing() finds optional packages that are neither nested nor hoisted", () => {
  assertEquals(findMissing(LOCK), [
    { name: "@nx/nx-linux-x64-musl", version: "2.0.0", parent: "node_modules/nx" },
  ]);
});

Deno.test("completeLock() adds what is missing with its platform, and leaves the rest alone", () => {
  const completed = completeLock(LOCK);
  assertEquals(findMissing(completed), []);
  assertEquals(completed.packages["node_modules/@nx/nx-linux-x64-musl"], {
    version: "2.0.0",
    dev: true,
    cpu: ["x64"],
    libc: ["musl"],
    optional: true,
    os: ["linux"],
  });
  assertEquals(completeLock(completed), completed);
});

Deno.test("completeLock() refuses a name that tells no platform", () => {
  const packages = { "node_modules/a": { optionalDependencies: { fsevents: "2.3.3" } } };
  assertThrows(() => completeLock({ packages }), Error, "fsevents");
});
