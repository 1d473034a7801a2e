import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "node:path";
import { FormatError } from "../errors.ts";
import { inTemporaryFolder, rawFloat32File, type RawTensor, REPOSITORY, zeros } from "../test_support.ts";
import { chooseLayout } from "./choose.ts";
import type { Layout } from "./layout.ts";
import { LAYOUTS } from "./registry.ts";
import { type AdapterSource, openSource } from "./source.ts";

/** A layout that claims every key with its prefix. */
function layoutOf(prefix: string, more: Partial<Layout> = {}): Layout {
  return {
    id: prefix,
    title: prefix.toUpperCase(),
    container: "safetensors",
    weightFiles: [],
    ownsKey: (key) => key.startsWith(prefix),
    read: () => Promise.reject(new Error("unused")),
    ...more,
  };
}

function withSource(
  tensors: Record<string, RawTensor>,
  check: (source: AdapterSource) => void,
): Promise<void> {
  return inTemporaryFolder(async (folder) => {
    await Deno.writeFile(join(folder, "x.safetensors"), rawFloat32File(tensors));
    const source = await openSource(folder, []);
    check(source);
    source.weights.close();
  });
}

Deno.test("chooseLayout() answers mixed_layouts naming a key of each when two layouts claim a file", () =>
  withSource({ "one.a": zeros(1), "two.b": zeros(1) }, (source) => {
    const error = assertThrows(() => chooseLayout(source, [layoutOf("one"), layoutOf("two")]), FormatError);
    assertEquals(error.code, "mixed_layouts");
    assertStringIncludes(error.message, "ONE (the key one.a) and TWO (the key two.b)");
  }));

Deno.test("chooseLayout() takes the only layout that claims a file, and answers unknown_layout without one", () =>
  withSource({ "one.a": zeros(1) }, (source) => {
    assertEquals(chooseLayout(source, [layoutOf("two"), layoutOf("one")]).id, "one");
    assertEquals(
      assertThrows(() => chooseLayout(source, [layoutOf("two")]), FormatError).code,
      "unknown_layout",
    );
  }));

Deno.test("chooseLayout() gives a key to the first layout that owns it", () =>
  withSource({ "one.a": zeros(1) }, (source) => {
    assertEquals(chooseLayout(source, [layoutOf("one"), layoutOf("o")]).id, "one");
  }));

Deno.test("chooseLayout() asks for guesses only where no layout owns a key", () =>
  withSource({ "one.a": zeros(1), "two.b": zeros(1) }, (source) => {
    const guessing = layoutOf("three", { mayOwnKey: () => true });
    assertEquals(chooseLayout(source, [guessing, layoutOf("one")]).id, "one");
    assertEquals(chooseLayout(source, [guessing]).id, "three");
  }));

Deno.test("chooseLayout() leaves out layouts of another container", () =>
  withSource({ "one.a": zeros(1) }, (source) => {
    const other = layoutOf("one", { container: "gguf" });
    assertEquals(
      assertThrows(() => chooseLayout(source, [other]), FormatError).code,
      "unknown_layout",
    );
  }));

Deno.test("LAYOUTS has unique ids, and exactly one that claims an adapter of PEFT", async () => {
  assertEquals(new Set(LAYOUTS.map(({ id }) => id)).size, LAYOUTS.length);
  const source = await openSource(join(REPOSITORY, "examples/tiny-llama/adapters/language"), [
    "adapter_model",
  ]);
  assertEquals(chooseLayout(source, LAYOUTS).id, "peft");
  source.weights.close();
});
