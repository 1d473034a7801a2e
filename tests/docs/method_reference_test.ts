import { assert, assertEquals } from "@std/assert";
import { methodReference, METHODS } from "@lora-loom/merge";
import { repositoryPath } from "../support/paths.ts";

Deno.test("docs/methods/README.md says what the methods declare", async () => {
  const page = await Deno.readTextFile(repositoryPath("docs/methods/README.md"));
  assert(
    page === methodReference(METHODS.values()),
    "the page is stale; type: deno run -A libs/merge/scripts/write_method_reference.ts",
  );
});

Deno.test("methodReference() leads from each row of its list to a section", () => {
  const page = methodReference(METHODS.values());
  const anchors = [...page.matchAll(/\]\(#([^)]+)\)/g)].map(([, anchor]) => anchor);
  const headings = [...page.matchAll(/^## (.+)$/gm)].map(([, text]) =>
    text!.toLowerCase().replaceAll(" ", "-")
  );
  assertEquals(anchors, headings);
  assertEquals(new Set(anchors).size, METHODS.size);
});
