import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { canonicalPath, moduleKey } from "./canonical.ts";
import { inferComponent, splitComponent } from "./components.ts";
import { PathDecoder } from "./underscores.ts";
import { COMPOUND_WORDS, SIMPLE_WORDS } from "./words.ts";

Deno.test("PathDecoder.decode() gives a path that joins to what it was made of, or none", () => {
  const words = fc.constantFrom(...COMPOUND_WORDS, ...SIMPLE_WORDS, "0", "17", "unknown", "x");
  fc.assert(
    fc.property(fc.array(words, { minLength: 1, maxLength: 6 }), (parts) => {
      const joined = parts.join("_");
      const decoded = new PathDecoder([joined]).decode(joined);
      const hasUnknown = parts.some((part) => part === "unknown" || part === "x");
      assertEquals(decoded?.replaceAll(".", "_"), hasUnknown ? undefined : joined);
    }),
    { seed: 13, numRuns: 2000 },
  );
});

Deno.test("COMPOUND_WORDS have an underscore, SIMPLE_WORDS none", () => {
  assertEquals([...COMPOUND_WORDS].filter((word) => !word.includes("_")), []);
  assertEquals([...SIMPLE_WORDS].filter((word) => word.includes("_")), []);
});

Deno.test("canonicalPath() removes what differs between versions of a model, doubled too", () => {
  for (
    const prefix of [
      "",
      "model.",
      "model.model.",
      "model.language_model.",
      "language_model.model.",
      "base_model.model.model.",
      "base_model.model.base_model.model.",
      "text_encoder.model.",
    ]
  ) assertEquals(canonicalPath(`${prefix}layers.0.mlp.up_proj`), "layers.0.mlp.up_proj", prefix);
});

Deno.test("moduleKey() is equal for the names of one module, and differs between encoders", () => {
  const key = "unet.down_blocks.1.attentions.0.proj_in";
  for (const name of [key, "down_blocks.1.attentions.0.proj_in", "unet.input_blocks.4.1.proj_in"]) {
    assertEquals(moduleKey(name), key);
  }
  const [first, second] = ["text_encoder.text_model.x", "text_encoder_2.text_model.x"].map(moduleKey);
  assertEquals([first === second, first], [false, moduleKey("text_model.x")]);
});

Deno.test("splitComponent() and inferComponent() leave language models alone", () => {
  for (
    const name of [
      "transformer.h.0.attn.c_attn",
      "model.layers.0.mlp.up_proj",
      "encoder.block.0.layer.0.SelfAttention.q",
    ]
  ) {
    assertEquals([splitComponent(name).component, inferComponent(name)], [undefined, undefined]);
  }
});
