import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { DropList, matchesWildcard } from "./drop.ts";

Deno.test("matchesWildcard() agrees with a regular expression in which * is .*", () => {
  const text = (symbols: string) =>
    fc.array(fc.constantFrom(...symbols), { maxLength: 8 }).map((parts) => parts.join(""));
  fc.assert(
    fc.property(text("ab.**"), text("ab."), (pattern, name) => {
      const expected = new RegExp(`^${pattern.replaceAll(".", "\\.").replaceAll("*", ".*")}$`).test(name);
      assertEquals(matchesWildcard(pattern, name), expected, `${pattern} on ${name}`);
    }),
    { seed: 9, numRuns: 3000 },
  );
});

Deno.test("DropList.includes() looks for any of the names, literally or by wildcard", () => {
  const drop = new DropList(["bias", "*.lm_head"]);
  assertEquals(drop.includes("modules_to_save", "model.lm_head"), true);
  assertEquals(drop.includes("bias"), true);
  assertEquals(drop.includes("lm_head"), false);
  assertEquals(new DropList().includes("bias"), false);
});
