import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { memberManifests, withTemporaryWorkspace } from "../house/temporary_workspace.ts";
import { count, groupTests } from "./main.ts";
import { parseJunit } from "./junit.ts";
import { type MemberRun, runTests } from "./run_member.ts";

async function runSource(source: string, args: string[] = []): Promise<MemberRun> {
  let run: MemberRun | undefined;
  await withTemporaryWorkspace({ "a_test.ts": source }, async (root) => {
    run = await runTests(root, ["a_test.ts"], { args });
  });
  return run!;
}

Deno.test("runTests() counts tests, not their steps", async () => {
  const run = await runSource(`
    Deno.test("one <of> & two", () => {});
    Deno.test("steps", async (t) => { await t.step("a", () => {}); await t.step("b", () => {}); });
  `);
  assertEquals(run.tests.map(({ name, outcome }) => [name, outcome]), [
    ["one <of> & two", "passed"],
    ["steps", "passed"],
  ]);
  assertEquals(count(run), { passed: 2, failed: 0 });
});

Deno.test("runTests() counts a test with a failed step once", async () => {
  const run = await runSource(`
    Deno.test("steps", async (t) => { await t.step("a", () => { throw new Error("no"); }); });
    Deno.test("thrown", () => { throw new Error("no"); });
  `);
  assertEquals(count(run), { passed: 0, failed: 2 });
});

Deno.test("runTests() counts an ignored test as failed", async () => {
  const run = await runSource(`
    Deno.test("runs", () => {});
    Deno.test({ name: "needs a GPU", ignore: true, fn() {} });
  `);
  assertEquals(count(run), { passed: 1, failed: 1 });
});

Deno.test("runTests() leaves out tests that a filter left out", async () => {
  const run = await runSource(`Deno.test("one", () => {}); Deno.test("two", () => {});`, ["--filter", "two"]);
  assertEquals(run.tests.map(({ name }) => name), ["two"]);
});

Deno.test("runTests() counts a file that does not load", async () => {
  const run = await runSource(`Deno.test("never", () => {}); throw new Error("no");`);
  assertEquals(run.faults, ["./a_test.ts"]);
  assertEquals(count(run), { passed: 0, failed: 1 });
});

Deno.test("runTests() counts an error after the tests", async () => {
  const run = await runSource(`Deno.test("late", () => { setTimeout(() => { throw new Error("no"); }, 0); });
    Deno.test("wait", () => new Promise((resolve) => setTimeout(resolve, 50)));`);
  assertEquals(count(run).failed > 0, true);
});

Deno.test("runTests() counts a process that dies", async () => {
  const run = await runSource(`import process from "node:process";
    Deno.test("dies", () => { process.reallyExit(7); });`);
  assertEquals(count(run).failed > 0, true);
});

Deno.test("runTests() counts tests that hang", async () => {
  await withTemporaryWorkspace(
    { "a_test.ts": `Deno.test("hangs", () => { while (true); });` },
    async (root) => {
      const run = await runTests(root, ["a_test.ts"], { timeout: 1500 });
      assertEquals(count(run), { passed: 0, failed: 1 });
      assertStringIncludes(run.faults[0]!, "did not end");
    },
  );
});

Deno.test("parseJunit() reads escaped text and both forms of an element", () => {
  const xml = `<testsuite><testcase name="a &lt;b&gt; &#39;c&#x27;" classname="./x_test.ts" time="1.5"/>
    <testcase name="d" classname="./x_test.ts" time="0.5"><error message="x"/></testcase></testsuite>`;
  assertEquals(parseJunit(xml), [
    { file: "./x_test.ts", name: "a <b> 'c'", outcome: "passed", seconds: 1.5 },
    { file: "./x_test.ts", name: "d", outcome: "failed", seconds: 0.5 },
  ]);
});

Deno.test("groupTests() gives each test file to its own member, and only the wanted ones", async () => {
  const files = {
    ...memberManifests(["libs/a", "tools", "tools/std"]),
    "libs/a/src/x_test.ts": "",
    "libs/a/src/x.ts": "",
    "tools/y_test.ts": "",
    "tools/std/z_test.ts": "",
    "tools/fixtures/no_test.ts": "",
  };
  await withTemporaryWorkspace(files, (root) => {
    assertEquals([...groupTests(root, [])], [
      ["libs/a", ["libs/a/src/x_test.ts"]],
      ["tools", ["tools/y_test.ts"]],
      ["tools/std", ["tools/std/z_test.ts"]],
    ]);
    assertEquals([...groupTests(root, ["./libs/a/"]).keys()], ["libs/a"]);
    assertEquals([...groupTests(root, [join("tools", "std", "z_test.ts")]).keys()], ["tools/std"]);
    assertEquals([...groupTests(root, ["@lora-loom/tools"]).keys()], ["tools"]);
    return Promise.resolve();
  });
});
