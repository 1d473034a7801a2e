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
  ];
  for (const [pattern, module, matches] of cases) {
    assertEquals(moduleGlob(pattern)(module), matches, `${pattern} ${module}`);
  }
});
