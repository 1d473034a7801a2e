import { assertEquals } from "@std/assert";
import { join } from "node:path";
import { readJsonFile } from "./json/read_json_file.ts";
import { REFUSALS } from "./refusals_for_tests.ts";
import { assertRefused, inTemporaryFolder } from "./test_support.ts";

const FOLDER = new URL(".", import.meta.url).pathname;

/** Failures that a test cannot bring about without another machine: the disk, the rights and the limits of the system. */
const OF_THE_SYSTEM = [
  ...["cross_device", "disk_full", "file_too_large", "permission_denied", "read_only", "too_many_files"],
  ...["not_a_directory", "io_error"],
];

function filesIn(folder: string): string[] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) =>
    isDirectory ? filesIn(join(folder, name)) : [join(folder, name)]
  ).filter((path) => path.endsWith(".ts"));
}

const isTest = (path: string) => /(_test|_for_tests|test_support)\.ts$/.test(path);
const textOf = (paths: readonly string[]) => paths.map((path) => Deno.readTextFileSync(path)).join("\n");

Deno.test("every refusal in the sources is listed with its message and fix, and has a test", () => {
  const files = filesIn(FOLDER);
  const sources = textOf(files.filter((path) => !isTest(path)));
  const tests = textOf(files.filter((path) => path.endsWith("_test.ts")));
  const literal = /new FormatError\(\s*(?:\w+ \? )?"([a-z0-9_]+)"(?: : "([a-z0-9_]+)")?/g;
  const found = new Set(
    [...sources.matchAll(literal)].flatMap(([, one, other]) => other ? [one!, other] : [one!]),
  );
  assertEquals(
    [...found].filter((code) => !(code in REFUSALS)),
    [],
    "without a line in refusals_for_tests.ts",
  );
  const untested = Object.keys(REFUSALS).filter((code) => !OF_THE_SYSTEM.includes(code))
    .filter((code) => !tests.includes(`"${code}"`));
  assertEquals(untested, [], "without a test");
});

Deno.test("readJsonFile() refuses a file that is too large to be a configuration, before it is read", () =>
  inTemporaryFolder(async (folder) => {
    const path = join(folder, "adapter_config.json");
    using file = await Deno.open(path, { create: true, write: true });
    await file.truncate(2 ** 40);
    await assertRefused(() => readJsonFile(path), "json_too_large");
  }));
