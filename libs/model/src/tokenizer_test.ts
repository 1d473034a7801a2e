import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { assertEquals, assertRejects } from "@std/assert";
import { inTemporaryFolder } from "@lora-loom/testing";
import { ModelError } from "./errors.ts";
import { openTokenizer } from "./tokenizer.ts";

const BASE = new URL("../../../examples/tiny-llama/base", import.meta.url).pathname;

Deno.test("openTokenizer() encodes with the leading special token and decodes back", async () => {
  const tokenizer = await openTokenizer(BASE);
  assertEquals([tokenizer.bosId, tokenizer.eosId, tokenizer.vocabularySize], [1, 2, 2048]);
  const text = "language: infância têm direito a ajuda\nanswer:";
  const ids = tokenizer.encode(text);
  assertEquals(ids[0], 1);
  assertEquals(ids.includes(2), false);
  assertEquals(tokenizer.decode(ids), text);
  assertEquals(tokenizer.decode([...ids, 2]), text);
  assertEquals(tokenizer.decode([...ids, 2], { skipSpecial: false }), `<s>${text}</s>`);
  assertEquals(tokenizer.decode([]), "");
});

Deno.test("openTokenizer() says which file is missing or unusable", async () => {
  await inTemporaryFolder(async (directory) => {
    const missing = await assertRejects(() => openTokenizer(directory), ModelError);
    assertEquals([missing.code, missing.where], ["missing_file", join(directory, "tokenizer.json")]);
    await writeFile(join(directory, "tokenizer.json"), "{");
    assertEquals((await assertRejects(() => openTokenizer(directory), ModelError)).code, "invalid_json");
    await writeFile(join(directory, "tokenizer.json"), `{"model": {"type": "Unheard-of"}}`);
    assertEquals((await assertRejects(() => openTokenizer(directory), ModelError)).code, "invalid_tokenizer");
  });
});
