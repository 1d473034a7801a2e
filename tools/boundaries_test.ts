import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { checkBoundaries } from "./boundaries.ts";
import { HOUSE } from "./house/arrows.ts";
import { memberManifests, withTemporaryWorkspace } from "./house/temporary_workspace.ts";
import { findCycles, type Violation } from "./house/violations.ts";

const MEMBERS = ["libs/tensor", "libs/formats", "libs/lego", "libs/merge", "libs/testing", "apps/runner"];

const SOUND = {
  ...memberManifests(MEMBERS, { "@std/assert": "./libs/testing/src/mod.ts" }),
  "libs/tensor/src/mod.ts": `export type Tensor = number[];\nexport const gemm = 1;\n`,
  "libs/formats/src/mod.ts": `export const read = 1;\n`,
  "libs/lego/src/mod.ts": `export { gemm as cluster } from "@lora-loom/tensor";\n`,
  "libs/lego/src/mod_test.ts": `import "@std/assert";\nimport "@lora-loom/testing";\nimport "./mod.ts";\n`,
  "libs/merge/src/mod.ts": `import "@lora-loom/lego";\nimport type { Tensor } from "@lora-loom/tensor";\n` +
    `export type T = Tensor;\n// import "@lora-loom/runner";\nexport const text = \`\nimport "@lora-loom/runner";\n\`;\n`,
  "libs/testing/src/mod.ts": `import "@lora-loom/formats";\n`,
  "apps/runner/src/mod.ts": `import "@lora-loom/merge";\n`,
};

async function violationsOf(changes: Record<string, string>): Promise<Violation[]> {
  let found: Violation[] = [];
  await withTemporaryWorkspace({ ...SOUND, ...changes }, async (root) => {
    found = await checkBoundaries(root);
  });
  return found;
}

const summary = (violations: Violation[]) => violations.map(({ rule, where }) => `${rule} ${where}`);

Deno.test("checkBoundaries() finds nothing in a workspace that keeps to the arrows", async () => {
  assertEquals(await violationsOf({}), []);
});

Deno.test("checkBoundaries() reports a forbidden arrow, its line and what is allowed", async () => {
  const found = await violationsOf({
    "libs/lego/src/mod.ts": `export const a = 1;\nimport "@lora-loom/formats";\n`,
  });
  assertEquals(summary(found), ["forbidden_arrow libs/lego/src/mod.ts:2"]);
  assertStringIncludes(found[0]!.message, "it may import libs/tensor");
});

Deno.test("checkBoundaries() reports a forbidden arrow that is only a type", async () => {
  const found = await violationsOf({
    "libs/formats/src/mod.ts": `export type { Tensor } from "@lora-loom/tensor";\n`,
  });
  assertEquals(summary(found), ["forbidden_arrow libs/formats/src/mod.ts:1"]);
});

Deno.test("checkBoundaries() reports a forbidden arrow that is loaded later", async () => {
  const found = await violationsOf({
    "libs/tensor/src/mod.ts": `export const late = () => import("@lora-loom/merge");\n`,
  });
  assertEquals(summary(found), ["forbidden_arrow libs/tensor/src/mod.ts:1"]);
});

Deno.test("checkBoundaries() reports a forbidden arrow of a test", async () => {
  const found = await violationsOf({ "libs/lego/src/mod_test.ts": `import "@lora-loom/merge";\n` });
  assertEquals(summary(found), ["forbidden_arrow libs/lego/src/mod_test.ts:1"]);
});

Deno.test("checkBoundaries() reports a relative import that leaves its member", async () => {
  const found = await violationsOf({ "libs/lego/src/mod.ts": `import "../../tensor/src/mod.ts";\n` });
  assertEquals(summary(found), ["relative_escape libs/lego/src/mod.ts:1"]);
});

Deno.test("checkBoundaries() reports a relative import of a file that is in no member", async () => {
  const found = await violationsOf({
    "libs/lego/src/mod.ts": `import "../../../loose.ts";\n`,
    "loose.ts": "export {};\n",
  });
  assertEquals(summary(found), ["relative_escape libs/lego/src/mod.ts:1"]);
});

Deno.test("checkBoundaries() reports the test library imported by code that is no test", async () => {
  const found = await violationsOf({
    "libs/lego/src/mod.ts": `import "@lora-loom/testing";\n`,
    "apps/runner/src/mod.ts": `import "@std/assert";\n`,
  });
  assertEquals(summary(found).sort(), [
    "tests_only apps/runner/src/mod.ts:1",
    "tests_only libs/lego/src/mod.ts:1",
  ]);
});

Deno.test("checkBoundaries() lets tests share helpers that other code may not import", async () => {
  const found = await violationsOf({
    "libs/lego/src/test_support/oracle.ts": `import "@lora-loom/testing";\n`,
    "libs/lego/src/mod_test.ts": `import "./test_support/oracle.ts";\n`,
    "libs/lego/src/mod.ts": `import "./test_support/oracle.ts";\n`,
  });
  assertEquals(summary(found), ["tests_only libs/lego/src/mod.ts:1"]);
});

Deno.test("checkBoundaries() lets tests and benchmarks of every member read flags", async () => {
  const found = await violationsOf({
    ...memberManifests([...MEMBERS, "tools/std"], { "@std/cli/parse-args": "./tools/std/src/mod.ts" }),
    "tools/std/src/mod.ts": "export {};\n",
    "libs/lego/bench/speed.ts": `import "@std/cli/parse-args";\n`,
    "libs/lego/src/mod.ts": `import "@std/cli/parse-args";\n`,
    "libs/lego/src/mod_test.ts": "export {};\n",
  });
  assertEquals(summary(found), ["forbidden_arrow libs/lego/src/mod.ts:1"]);
});

Deno.test("checkBoundaries() reports a package for tests imported by code that is no test", async () => {
  const found = await violationsOf({
    "package.json": `{ "devDependencies": { "fast-check": "*", "webgpu": "*" } }`,
    "libs/lego/src/mod.ts": `import "fast-check";\n`,
    "libs/lego/src/mod_test.ts": `import "fast-check";\n`,
  });
  assertEquals(summary(found), ["tests_only libs/lego/src/mod.ts:1"]);
});

Deno.test("checkBoundaries() reports a package imported by another than its owner", async () => {
  const found = await violationsOf({
    "package.json": `{ "dependencies": { "webgpu": "*" } }`,
    "libs/tensor/src/mod.ts": `import "webgpu";\n`,
    "libs/lego/src/mod.ts": `import "webgpu";\n`,
  });
  assertEquals(summary(found), ["owned_package libs/lego/src/mod.ts:1"]);
});

Deno.test("checkBoundaries() reports files that import each other in a circle", async () => {
  const found = await violationsOf({
    "libs/tensor/src/mod.ts": `import "./a.ts";\n`,
    "libs/tensor/src/a.ts": `import "./b.ts";\n`,
    "libs/tensor/src/b.ts": `import "./a.ts";\nimport type {} from "./mod.ts";\n`,
  });
  assertEquals(summary(found), ["cycle libs/tensor/src/a.ts"]);
  assertStringIncludes(found[0]!.message, "libs/tensor/src/a.ts, libs/tensor/src/b.ts");
});

Deno.test("checkBoundaries() reports a member that has no room", async () => {
  const found = await violationsOf({
    ...memberManifests([...MEMBERS, "libs/cellar"]),
    "libs/cellar/src/mod.ts": "export {};\n",
    "libs/lego/src/mod_test.ts": "export {};\n",
  });
  assertEquals(summary(found), ["unknown_room libs/cellar/deno.json"]);
});

Deno.test("HOUSE has no circle among its arrows", () => {
  const arrows = HOUSE.rooms.flatMap(({ path, mayImport }) =>
    mayImport === "*" ? [] : mayImport.map((target) => ({
      file: path,
      line: 1,
      specifier: target,
      target,
      lazy: false,
    }))
  );
  assert(arrows.length > 10);
  assertEquals(findCycles(arrows), []);
});
