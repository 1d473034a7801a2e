import { assertEquals } from "@std/assert";
import { memberManifests, withTemporaryWorkspace } from "../house/temporary_workspace.ts";
import { listBenchmarks } from "./main.ts";

Deno.test("listBenchmarks() finds the programs in the members' bench folders", async () => {
  const files = {
    ...memberManifests(["libs/lego", "tools"]),
    "libs/lego/bench/decisions.ts": "",
    "libs/lego/bench/decisions_test.ts": "",
    "libs/lego/bench/shapes/llama.ts": "",
    "libs/lego/src/bench.ts": "",
    "tools/bench/main.ts": "",
    "tools/bench/startup.ts": "",
  };
  await withTemporaryWorkspace(files, (root) => {
    assertEquals(listBenchmarks(root), [
      { name: "lego/decisions", path: "libs/lego/bench/decisions.ts" },
      { name: "tools/startup", path: "tools/bench/startup.ts" },
    ]);
    return Promise.resolve();
  });
});
