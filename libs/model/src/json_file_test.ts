import { assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { inTemporaryFolder } from "@lora-loom/testing";
import { ModelError } from "./errors.ts";
import { readTextFile } from "./json_file.ts";

Deno.test("readTextFile() tells a folder for a file, a file for a folder and a missing file apart", () =>
  inTemporaryFolder(async (folder) => {
    const file = join(folder, "model.safetensors");
    await Deno.writeTextFile(file, "");
    const missing = join(folder, "none", "config.json");
    for (
      const [path, code, where, message] of [
        [folder, "not_a_file", folder, `${folder} is a folder, a file was expected`],
        [join(file, "config.json"), "not_a_directory", file, `${file} is a file, a folder was expected`],
        [join(file, "sub", "x.json"), "not_a_directory", file, `${file} is a file, a folder was expected`],
        [missing, "missing_file", missing, undefined],
      ] as const
    ) {
      const error = await assertRejects(() => readTextFile(path, "point to it"), ModelError);
      assertEquals([error.code, error.where, error.fix], [code, where, "point to it"]);
      if (message !== undefined) assertEquals(error.message, message);
    }
  }));
