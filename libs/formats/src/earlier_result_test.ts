import { assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { convertAdapter } from "./convert/convert.ts";
import { OUTPUT_FORMATS } from "./create_adapter_writer.ts";
import { refuseForeign } from "./earlier_result.ts";
import { assertRefused, inTemporaryFolder, REPOSITORY } from "./test_support.ts";

const BASE = join(REPOSITORY, "examples/tiny-llama/base");
const ADAPTER = join(REPOSITORY, "examples/tiny-llama/adapters/language");

for (const to of OUTPUT_FORMATS.filter((format) => format !== "original")) {
  Deno.test(`refuseForeign() lets a folder in the layout ${to} be replaced, as convertAdapter() writes it`, () =>
    inTemporaryFolder(async (folder) => {
      const output = join(folder, "out");
      await convertAdapter(ADAPTER, output, { to, base: BASE });
      await Deno.remove(join(output, "README.md"));
      await refuseForeign(output, "folder");
    }));
}

for (const [to, file] of [["kohya", "a.safetensors"], ["gguf", "a.gguf"]] as const) {
  Deno.test(`refuseForeign() lets an adapter's file in the layout ${to} be replaced by a file alone`, () =>
    inTemporaryFolder(async (folder) => {
      const output = join(folder, file);
      await convertAdapter(ADAPTER, output, { to, base: BASE });
      await refuseForeign(output, "file");
      assertStringIncludes(
        (await assertRefused(() => refuseForeign(output, "folder"), "not_a_result")).message,
        "a file",
      );
    }));
}

Deno.test("refuseForeign() lets nothing, an empty folder and a folder with loom.json be replaced", () =>
  inTemporaryFolder(async (folder) => {
    await refuseForeign(join(folder, "nothing"), "folder");
    await refuseForeign(folder, "folder");
    await Deno.writeTextFile(join(folder, "notes.txt"), "");
    await Deno.writeTextFile(join(folder, "loom.json"), "{}");
    await refuseForeign(folder, "folder");
  }));

Deno.test("refuseForeign() says what it found where that is no earlier result", () =>
  inTemporaryFolder(async (folder) => {
    const says = async (path: string, kind: "folder" | "file", text: string) =>
      assertStringIncludes(
        (await assertRefused(() => refuseForeign(path, kind), "not_a_result")).message,
        text,
      );
    await Deno.writeTextFile(join(folder, "thesis.txt"), "");
    await says(folder, "folder", 'holds "thesis.txt" but neither loom.json nor an adapter');
    await says(join(folder, "thesis.txt"), "file", "is a file");
    for (const name of ["a", "b", "c"]) await Deno.writeTextFile(join(folder, name), "");
    await says(folder, "folder", 'holds "a", "b", "c" and 1 more');
    await says(BASE, "folder", "neither loom.json nor an adapter");
    await says(join(BASE, "model.safetensors"), "file", "is a file");
    await says("/dev/null", "file", "neither a file nor a folder");
  }));
