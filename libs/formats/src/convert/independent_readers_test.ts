/** What is written, as libraries of others read it. */
import { assertEquals } from "@std/assert";
import { gguf } from "@huggingface/gguf";
import { parseSafetensorsMetadata } from "@huggingface/hub";
import { join } from "node:path";
import { openAdapter } from "../open_adapter.ts";
import { inTemporaryFolder, REPOSITORY } from "../test_support.ts";
import { convertAdapter } from "./convert.ts";

const BASE = join(REPOSITORY, "examples/tiny-llama/base");
const ADAPTER = join(REPOSITORY, "examples/tiny-llama/adapters/language");
/** Of tiny-llama: heads of queries and of keys, and rows of each head. */
const [QUERY_HEADS, KEY_HEADS, HEAD_ROWS] = [4, 2, 64];

Deno.test("@huggingface/gguf reads what convertAdapter() writes for llama.cpp: names, shapes, permuted and scaled values", () =>
  inTemporaryFolder(async (folder) => {
    const path = join(folder, "adapter.gguf");
    await convertAdapter(ADAPTER, path, { to: "gguf", base: BASE });
    const { metadata, tensorInfos, tensorDataOffset } = await gguf(path, { allowLocalFile: true });
    const values: Record<string, unknown> = { ...metadata };
    assertEquals(
      ["general.architecture", "general.type", "adapter.type", "adapter.lora.alpha", "version"].map((key) =>
        values[key]
      ),
      ["llama", "adapter", "lora", 0, 3],
    );
    using source = await openAdapter(ADAPTER);
    assertEquals(tensorInfos.length, 2 * source.modules.size);
    const bytes = (await Deno.readFile(path)).buffer;
    const tensor = (name: string) => {
      const { shape, offset, dtype } = tensorInfos.find((info) => info.name === name)!;
      const dimensions = [...shape].map(Number);
      const start = Number(tensorDataOffset) + Number(offset);
      const count = dimensions.reduce((product, size) => product * size, 1);
      return { dimensions, dtype, values: new Float32Array(bytes, start, count) };
    };
    const cases = [["q_proj", "attn_q", QUERY_HEADS], ["k_proj", "attn_k", KEY_HEADS], [
      "v_proj",
      "attn_v",
      0,
    ]] as const;
    for (const [module, name, heads] of cases) {
      const { a, b, inFeatures, outFeatures, rank } = source.modules.get(
        `model.layers.3.self_attn.${module}`,
      )!;
      const first = tensor(`blk.3.${name}.weight.lora_a`);
      assertEquals([first.dimensions, first.dtype], [[inFeatures, rank], 0]);
      assertEquals(first.values, await a.readFloat32());
      const second = tensor(`blk.3.${name}.weight.lora_b`);
      assertEquals([second.dimensions, second.dtype], [[rank, outFeatures], 0]);
      // llama.cpp: reshape(heads, 2, rows / 2, r).swapaxes(1, 2)
      const original = await b.readFloat32();
      for (let head = 0, at = 0; head < heads; head++) {
        for (let pair = 0; pair < HEAD_ROWS / 2; pair++) {
          for (const half of [0, 1]) {
            const row = head * HEAD_ROWS + half * (HEAD_ROWS / 2) + pair;
            for (let k = 0; k < rank; k++) assertEquals(second.values[at++], 2 * original[row * rank + k]!);
          }
        }
      }
      if (heads === 0) assertEquals(second.values, original.map((value) => 2 * value));
    }
  }));

/** Serves one file in ranges, as a repository would. */
function serveFile(bytes: Uint8Array<ArrayBuffer>): typeof fetch {
  return (_input, init) => {
    const range = /bytes=(\d+)-(\d+)?/.exec(new Headers(init?.headers).get("range") ?? "");
    if (!range) {
      return Promise.resolve(new Response(bytes, { headers: { "content-length": `${bytes.length}` } }));
    }
    const [start, end] = [Number(range[1]), Math.min(Number(range[2] ?? bytes.length - 1), bytes.length - 1)];
    const headers = { "content-range": `bytes ${start}-${end}/${bytes.length}`, etag: '"x"' };
    return Promise.resolve(new Response(bytes.slice(start, end + 1), { status: 206, headers }));
  };
}

for (
  const [to, file, key] of [
    ["mlx", "adapters.safetensors", "model.layers.0.mlp.up_proj.lora_a"],
    ["kohya", "lora.safetensors", "lycoris_model_layers_0_mlp_up_proj.lora_down.weight"],
    [
      "diffusers",
      "pytorch_lora_weights.safetensors",
      "text_encoder.model.layers.0.mlp.up_proj.lora_A.weight",
    ],
  ] as const
) {
  Deno.test(`@huggingface/hub reads what convertAdapter() writes as ${to}: names, shapes and values`, () =>
    inTemporaryFolder(async (folder) => {
      const output = join(folder, "out");
      await convertAdapter(ADAPTER, output, { to });
      const bytes = await Deno.readFile(join(output, file));
      const parsed = await parseSafetensorsMetadata({
        repo: "some/adapter",
        path: file,
        fetch: serveFile(bytes),
      });
      if (parsed.sharded) throw new Error("one file was expected");
      using source = await openAdapter(ADAPTER);
      const { a, rank, inFeatures } = source.modules.get("model.layers.0.mlp.up_proj")!;
      const { dtype, shape, data_offsets: [begin, end] } = parsed.header[key]!;
      const isTransposed = to === "mlx";
      assertEquals([dtype, shape], ["F32", isTransposed ? [inFeatures, rank] : [rank, inFeatures]]);
      const start = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
      const found = new Float32Array(bytes.buffer.slice(start + begin, start + end));
      const expected = await a.readFloat32();
      assertEquals(
        found,
        isTransposed
          ? found.map((_, at) => expected[(at % rank) * inFeatures + Math.floor(at / rank)]!)
          : expected,
      );
    }));
}
