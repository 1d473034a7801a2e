import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { MergeError } from "../errors.ts";
import { applyOverride, parseOverride } from "./overrides.ts";

const apply = (root: unknown, text: string) => applyOverride(root, parseOverride(text));

Deno.test("applyOverride() replaces, adds and descends into lists, and leaves its input alone", () => {
  const root = { seed: 1, adapters: [{ path: "a" }, { path: "b" }] };
  const before = structuredClone(root);
  assertEquals(apply(root, "seed=7"), { ...root, seed: 7 });
  assertEquals(apply(root, "adapters.1.weight=0.5"), {
    seed: 1,
    adapters: [{ path: "a" }, { path: "b", weight: 0.5 }],
  });
  assertEquals(apply(root, "parameters.rank=8"), { ...root, parameters: { rank: 8 } });
  assertEquals(apply(root, 'include=["*.q_proj"]'), { ...root, include: ["*.q_proj"] });
  assertEquals(apply(root, "output.path=a=b"), { ...root, output: { path: "a=b" } });
  assertEquals(root, before);
});

Deno.test("applyOverride() names what is there when the path leads nowhere", () => {
  const cases: [text: string, part: string][] = [
    ["seed.x=1", "seed is a plain value"],
    ["adapters.2.weight=1", "it has the entries 0 to 1"],
    ["adapters.last.weight=1", "adapters has no entry"],
  ];
  for (const [text, part] of cases) {
    const error = assertThrows(() => apply({ seed: 1, adapters: [{}, {}] }, text), MergeError);
    assertEquals(error.code, "override_target");
    assertStringIncludes(error.message, part);
    assertEquals(error.where, `--set ${text}`);
  }
});

Deno.test("parseOverride() refuses what is not key=value", () => {
  for (const text of ["rank", "=8", "a..b=1", "a=[1"]) {
    assertEquals(assertThrows(() => parseOverride(text), MergeError).code, "override_syntax", text);
  }
});
