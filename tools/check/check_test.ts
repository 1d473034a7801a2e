import { assertEquals } from "@std/assert";
import { withTemporaryWorkspace } from "../house/temporary_workspace.ts";
import { findBrokenLinks, findUndocumented, listDocuments, withExamples } from "./documents.ts";
import { compareScripts } from "./scripts.ts";

const fence = "```";

Deno.test("withExamples() finds the documents that hold a TypeScript block", async () => {
  const files = {
    "README.md": `# A\n\n${fence}ts\nconst a = 1;\n${fence}\n`,
    "docs/shell.md": `${fence}sh\nnpm test\n${fence}\n`,
    "docs/later.md": `${fence}ts ignore\nconst a = ;\n${fence}\n`,
    "node_modules/x/README.md": `${fence}ts\n${fence}\n`,
  };
  await withTemporaryWorkspace(files, async (root) => {
    const documents = listDocuments(root);
    assertEquals(documents, ["README.md", "docs/later.md", "docs/shell.md"]);
    assertEquals(await withExamples(root, documents), ["README.md"]);
  });
});

Deno.test("findUndocumented() reports members without a README and libraries without an example", async () => {
  const files = {
    "libs/a/README.md": `${fence}ts\nconst a = 1;\n${fence}\n`,
    "libs/b/README.md": "# b\n",
    "apps/c/README.md": "# c\n",
  };
  await withTemporaryWorkspace(files, async (root) => {
    assertEquals(await findUndocumented(root, ["libs/a", "libs/b", "apps/c", "tools"]), [
      `libs/b/README.md has no example in a ${fence}ts block`,
      "tools/README.md is missing",
    ]);
  });
});

Deno.test("findBrokenLinks() reports links that lead nowhere, and no others", async () => {
  const files = {
    "LICENSE": "",
    "docs/guide.md": [
      "[licence](../LICENSE) [gone](gone.md#part) [web](https://example.org/x) [here](#part) `[code](code.md)`",
      `<img src="house.svg">`,
      `${fence}md\n[inside](inside.md)\n${fence}`,
      "[named]: ../missing.md",
    ].join("\n"),
  };
  await withTemporaryWorkspace(files, async (root) => {
    assertEquals(await findBrokenLinks(root, ["docs/guide.md"]), [
      "docs/guide.md: the link to gone.md#part leads nowhere",
      "docs/guide.md: the link to house.svg leads nowhere",
      "docs/guide.md: the link to ../missing.md leads nowhere",
    ]);
  });
});

Deno.test("compareScripts() reports commands that exist through one of Deno and npm only", async () => {
  const files = {
    "deno.json": JSON.stringify({
      tasks: { merge: "deno run a.ts", diff: "deno run b.ts", test: "deno run c.ts" },
    }),
    "package.json": JSON.stringify({
      scripts: {
        merge: "deno task merge",
        test: "deno test",
        serve: "deno task serve",
        postinstall: "node x.mjs",
      },
    }),
  };
  await withTemporaryWorkspace(files, async (root) => {
    assertEquals(await compareScripts(root), [
      `package.json: the script "diff" must be "deno task diff"`,
      `package.json: the script "test" must be "deno task test"`,
      `package.json: the script "serve" calls a task that deno.json does not have`,
    ]);
  });
});
