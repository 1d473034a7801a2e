import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { inTemporaryFolder } from "@lora-loom/testing";
import { ModelError } from "./errors.ts";
import { readTask } from "./jsonl.ts";

async function withFile(content: string, body: (path: string) => Promise<void>): Promise<void> {
  await inTemporaryFolder(async (directory) => {
    const path = join(directory, "rows.jsonl");
    await writeFile(path, content);
    await body(path);
  });
}

Deno.test("readTask() reads rows up to the limit and skips blank lines", () =>
  withFile(
    `{"prompt":"a","completion":"b"}\n\n{"prompt":"c","completion":"d","source":"x"}\r\n`,
    async (path) => {
      const rows = [{ prompt: "a", completion: "b" }, { prompt: "c", completion: "d" }];
      assertEquals(await readTask(path), rows);
      assertEquals(await readTask(path, 1), rows.slice(0, 1));
    },
  ));

Deno.test("readTask() names the line when a row is wrong", async () => {
  await withFile(`{"prompt":"a","completion":"b"}\n{"prompt":1}`, async (path) => {
    const error = await assertRejects(() => readTask(path), ModelError);
    assertEquals([error.code, error.where], ["invalid_row", `${path}:2`]);
    assertStringIncludes(error.message, `{"prompt":1}`);
  });
  await withFile("not json", async (path) => {
    assertEquals((await assertRejects(() => readTask(path), ModelError)).code, "invalid_row");
  });
  await withFile("\n", async (path) => {
    assertEquals((await assertRejects(() => readTask(path), ModelError)).code, "invalid_row");
  });
  assertEquals((await assertRejects(() => readTask("/nonexistent.jsonl"), ModelError)).code, "missing_file");
});

Deno.test("readTask() leaves a byte order mark out, and refuses what is not UTF-8", async () => {
  const row = { prompt: "ä", completion: "b" };
  await withFile(`\ufeff${JSON.stringify(row)}`, async (path) => assertEquals(await readTask(path), [row]));
  await withFile("", async (path) => {
    await writeFile(path, Uint8Array.of(0x7b, 0xe4, 0x7d));
    const error = await assertRejects(() => readTask(path), ModelError);
    assertEquals([error.code, error.where], ["not_text", path]);
    assertStringIncludes(error.fix, "UTF-8");
  });
});
