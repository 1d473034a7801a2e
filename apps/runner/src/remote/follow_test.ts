import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { MergeError } from "@lora-loom/merge";
import { Connection } from "./connection.ts";
import { resultOf } from "./follow.ts";

const RUN = {
  token: undefined,
  recipeFile: "recipe.yaml",
  force: false,
  signal: new AbortController().signal,
  onProgress() {},
  note() {},
};

Deno.test("resultOf() says that the merge is kept, and where its result will be, when the server is gone for good", async () => {
  // Took a merge, and went away: its port is free now.
  const gone = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const server = `http://127.0.0.1:${gone.addr.port}`;
  gone.close();
  const connection = new Connection({ server, token: undefined });
  const error = await assertRejects(
    () => resultOf("3f2a", connection, { ...RUN, server }, [0, 0]),
    MergeError,
  );
  assertEquals([error.code, error.where, error.blame], ["server_unreachable", server, "work"]);
  assertStringIncludes(error.message, `${server} does not answer`);
  assertStringIncludes(error.message, "the merge 3f2a is not lost");
  assertStringIncludes(error.fix, `${server}/api/merges/3f2a/archive.zip`);
  assertStringIncludes(error.fix, "starts another merge");
});
