import { assertEquals } from "@std/assert";
import { moduleGlob } from "./globs.ts";

Deno.test("moduleGlob() lets stars cross dots and takes everything else literally", () => {
  const cases: [pattern: string, module: string, matches: boolean][] = [
    ["*.q_proj", "model.layers.0.self_attn.q_proj", true],
    ["*.q_proj", "q_proj", false],
    ["model.layers.?.mlp.*", "model.layers.3.mlp.up_proj", true],
    ["model.layers.?.mlp.*", "model.layers.13.mlp.up_proj", false],
    ["*.{q,v}_proj", "a.v_proj", true],
    ["*.{q,v}_proj", "a.k_proj", false],
    ["a.b", "axb", false],
    ["a[0]", "a[0]", true],
    ["{a", "a", true],
    ["{a,b", "b", true],
    ["{a,{b,c}d}", "cd", true],
    ["{a,{b,c}d}", "ad", false],
    ["{,a}b", "b", true],
    ["a,b}", "a,b}", true],
    ["*a*b", "xxaybab", true],
    ["*a*b", "xxayba", false],
    ["*", "", true],
    ["", "", true],
    ["?", "\u{1F600}", true],
    ["a|b", "a", false],
  ];
  for (const [pattern, module, matches] of cases) {
    assertEquals(moduleGlob(pattern)(module), matches, `${pattern} ${module}`);
  }
});

Deno.test("moduleGlob() takes no longer for a pattern that makes regular expressions go back and forth", () => {
  const module = "model.layers.0.".repeat(8);
  assertEquals(moduleGlob("*a".repeat(100) + "!")(module), false);
  assertEquals(moduleGlob("{*,?}".repeat(100) + "!")(module), false);
  assertEquals(moduleGlob("{".repeat(200) + "*}".repeat(200) + "!")(module), false);
});
