import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { join } from "node:path";
import { FormatError } from "../errors.ts";
import { assertRefused, inTemporaryFolder } from "../test_support.ts";
import { sha256File } from "./hash.ts";
import { RandomAccessFile } from "./random_access_file.ts";
import { fileError } from "./system_errors.ts";
import { writeFileAtomic } from "./write_file_atomic.ts";

Deno.test("sha256File() agrees with Web Crypto on empty, small and many-chunk files", () =>
  inTemporaryFolder(async (folder) => {
    for (const length of [0, 3, (4 << 20) - 1, 4 << 20, (9 << 20) + 5]) {
      const path = join(folder, "f");
      const bytes = Uint8Array.from({ length }, (_, i) => i % 251);
      await Deno.writeFile(path, bytes);
      const expected = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
      assertEquals(await sha256File(path), expected);
    }
  }));

Deno.test("writeFileAtomic() replaces a file and leaves nothing else", () =>
  inTemporaryFolder(async (folder) => {
    const path = join(folder, "f");
    await writeFileAtomic(path, "one");
    await writeFileAtomic(path, new TextEncoder().encode("zwei"));
    assertEquals(await Deno.readTextFile(path), "zwei");
    assertEquals((await Array.fromAsync(Deno.readDir(folder))).length, 1);
  }));

Deno.test("writeFileAtomic() leaves nothing behind when the rename fails", () =>
  inTemporaryFolder(async (folder) => {
    const path = join(folder, "taken");
    await Deno.mkdir(join(path, "inside"), { recursive: true });
    await assertRefused(() => writeFileAtomic(path, "x"), "not_a_file");
    assertEquals((await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name), ["taken"]);
    await assertRefused(() => writeFileAtomic(join(folder, "missing/f"), "x"), "not_found");
  }));

Deno.test("RandomAccessFile reads and writes at positions, many at once", () =>
  inTemporaryFolder(async (folder) => {
    const path = join(folder, "f");
    const block = (i: number) => new Uint8Array(1000).fill(i);
    using file = await RandomAccessFile.open(path, "create");
    await Promise.all(Array.from({ length: 100 }, (_, i) => file.write(i * 1000, block(i))));
    await file.sync();
    using copy = await RandomAccessFile.open(path, "read");
    assertEquals(copy.size, 100_000);
    const blocks = await Promise.all(Array.from({ length: 100 }, (_, i) => copy.read(i * 1000, 1000)));
    blocks.forEach((bytes, i) => assertEquals(bytes, block(i)));
    await assertRefused(() => RandomAccessFile.open(path, "create"), "target_exists");
  }));

Deno.test("RandomAccessFile.read() answers out_of_memory when the buffer cannot be had", () =>
  inTemporaryFolder(async (folder) => {
    await Deno.writeTextFile(join(folder, "f"), "x");
    using file = await RandomAccessFile.open(join(folder, "f"), "read");
    await assertRefused(() => file.read(0, 2 ** 52), "out_of_memory");
  }));

Deno.test("fileError() says in our words what the system's codes mean", () => {
  const cases = {
    EACCES: "permission_denied",
    EPERM: "permission_denied",
    ENOSPC: "disk_full",
    EROFS: "read_only",
    EMFILE: "too_many_files",
    EWEIRD: "io_error",
  };
  for (const [code, expected] of Object.entries(cases)) {
    const cause = Object.assign(new Error(`${code}: it failed`), { code });
    const error = fileError(cause, "write", "/x/y");
    assertEquals([error.code, error.where], [expected, "/x/y"]);
    assert(error.fix !== "" && error.message.includes("/x/y"));
    assertStrictEquals(error.cause, cause);
  }
  const own = new FormatError("invalid_offset", "m", "f", "w");
  assertStrictEquals(fileError(own, "read", "/x"), own);
});
