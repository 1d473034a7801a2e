import { assertEquals, assertStringIncludes } from "@std/assert";
import { convertAdapter } from "../../convert/convert.ts";
import {
  assertFileRefused,
  assertRefused,
  random,
  type RawTensor,
  withFile,
  zeros,
} from "../../test_support.ts";

function pair(position: string, inFeatures = 3, outFeatures = 4): Record<string, RawTensor> {
  return {
    [`${position}:down`]: random(1, 1, inFeatures),
    [`${position}:up`]: random(2, outFeatures, 1),
  };
}

Deno.test("openAdapter() reads positions in the order of their numbers, with scale 1", () =>
  withFile({ ...pair("unet:10"), ...pair("unet:9") }, (adapter) => {
    assertEquals([...adapter.modules.keys()], ["unet:9", "unet:10"]);
    assertEquals([adapter.format, adapter.modules.get("unet:9")!.scale], ["cloneofsimo", 1]);
    assertEquals(adapter.warnings.map(({ code }) => code), ["positional_names"]);
  }, { metadata: { "unet:9:rank": "1", "unet:10:rank": "1", unet: '["CrossAttention"]' } }));

Deno.test("openAdapter() names all positions of Stable Diffusion 1.x where every shape is as it must be", () => {
  const tensors: Record<string, RawTensor> = {};
  for (let layer = 0; layer < 12; layer++) {
    for (let part = 0; part < 4; part++) {
      Object.assign(tensors, pair(`text_encoder:${4 * layer + part}`, 768, 768));
    }
  }
  return withFile(tensors, (adapter) => {
    assertEquals([adapter.modules.size, adapter.warnings], [48, []]);
    const { a } = adapter.modules.get("text_encoder.text_model.encoder.layers.1.self_attn.v_proj")!;
    assertEquals(a.name, "text_encoder:5:down");
  });
});

Deno.test("convertAdapter() refuses positions that have no names", () =>
  withFile(pair("unet:0"), async (_, path) => {
    const error = await assertRefused(
      () => convertAdapter(path, `${path}.out`, { to: "kohya" }),
      "names_unknown",
    );
    assertStringIncludes(error.message, "unet:0");
    assertStringIncludes(error.fix, "its own project");
  }));

const REFUSED:
  readonly (readonly [what: string, code: string, tensors: Record<string, RawTensor>, fix: string])[] = [
    ["a token was learned", "unsupported_tensor", { ...pair("unet:0"), "<s1>": zeros(3) }, "--drop tokens"],
    ["up is missing", "incomplete_pair", { "unet:0:down": zeros(1, 3) }, "incomplete"],
    ["down is missing", "incomplete_pair", { "unet:0:up": zeros(3, 1) }, "incomplete"],
    ["another key is there", "foreign_key", { ...pair("unet:0"), other: zeros(3) }, "comes from"],
  ];
for (const [what, code, tensors, fix] of REFUSED) {
  Deno.test(`openAdapter() answers ${code} when ${what} in a cloneofsimo file`, async () => {
    assertStringIncludes((await assertFileRefused(code, tensors)).fix, fix);
  });
}

Deno.test("openAdapter() answers rank_mismatch when the metadata contradict the tensors", async () => {
  const error = await assertFileRefused("rank_mismatch", pair("unet:0"), {
    metadata: { "unet:0:rank": "4" },
  });
  assertStringIncludes(error.message, '"4"');
});

Deno.test("openAdapter() drops learned tokens on request", () =>
  withFile({ ...pair("unet:0"), "<s1>": zeros(3), "<s2>": zeros(3) }, (adapter) => {
    assertEquals(adapter.warnings.filter(({ code }) => code === "dropped").length, 2);
  }, { drop: ["tokens"] }));
