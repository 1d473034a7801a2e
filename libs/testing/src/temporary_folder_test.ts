import { assert, assertEquals, assertRejects } from "@std/assert";
import { existsSync, writeFileSync } from "node:fs";
import { inTemporaryFolder } from "./temporary_folder.ts";

Deno.test("inTemporaryFolder() gives a folder that is gone afterwards, with all that was put into it", async () => {
  const folder = await inTemporaryFolder((folder) => {
    writeFileSync(`${folder}/file`, "");
    return folder;
  });
  assertEquals(existsSync(folder), false);
});

Deno.test("inTemporaryFolder() removes the folder also when the body fails", async () => {
  let seen = "";
  await assertRejects(
    () =>
      inTemporaryFolder((folder) => {
        assert(existsSync(seen = folder));
        return Promise.reject(new Error("failed"));
      }),
    Error,
    "failed",
  );
  assertEquals(existsSync(seen), false);
});
