import { assertEquals, assertRejects } from "@std/assert";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { MergeError } from "../errors.ts";
import { hashFiles, hashInThread } from "./hash_files.ts";

const FILES = ["language", "speech"].map((task) =>
  fileURLToPath(
    new URL(`../../../../examples/tiny-llama/adapters/${task}/adapter_model.safetensors`, import.meta.url),
  )
);
const expected = new Map(
  FILES.map((path) => [path, createHash("sha256").update(readFileSync(path)).digest("hex")]),
);

Deno.test("hashFiles() hashes each file once, here as in a thread", async () => {
  assertEquals(await hashFiles([...FILES, FILES[0]!]), expected);
  assertEquals(await hashInThread(FILES), expected);
  assertEquals(await hashInThread([]), new Map());
});

Deno.test("hashInThread() rejects when a file is gone or the merge is cancelled", async () => {
  assertEquals((await assertRejects(() => hashInThread(["/nowhere"]), MergeError)).code, "io_error");
  const controller = new AbortController();
  const hashing = hashInThread(FILES, controller.signal);
  controller.abort();
  assertEquals((await assertRejects(() => hashing, MergeError)).code, "cancelled");
});
