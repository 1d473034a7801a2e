/** Every reader reads or refuses what it is given, and fails in no other way. */
import { assert } from "@std/assert";
import fc from "fast-check";
import { join } from "node:path";
import { convertAdapter } from "./convert/convert.ts";
import { FormatError } from "./errors.ts";
import { openAdapter } from "./open_adapter.ts";
import {
  inTemporaryFolder,
  rawFile,
  rawFloat32File,
  type RawTensor,
  REPOSITORY,
  zeros,
} from "./test_support.ts";

/** Opens and reads all of it; the result is `read`, or the code of the refusal. */
async function outcomeOf(path: string, expand: boolean): Promise<string> {
  try {
    using adapter = await openAdapter(path, { expand });
    for (const { a, b, rank, inFeatures, outFeatures, scale } of adapter.modules.values()) {
      const [left, right] = [await b.readFloat32(), await a.readFloat32()];
      assert(left.length === outFeatures * rank && right.length === rank * inFeatures, "sizes disagree");
      assert(Number.isFinite(scale) && rank > 0, "no usable scale or rank");
    }
    return "read";
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    assert(error.message !== "" && error.fix !== "" && error.where !== "", `${error.code} lacks a field`);
    return error.code;
  }
}

interface Names {
  readonly fronts: readonly string[];
  /** The endings of a module's two factors. */
  readonly pair: readonly [a: string, b: string];
  readonly others: readonly string[];
  /** Factors are stored transposed. */
  readonly isTransposed?: true;
}

const NAMES: Readonly<Record<string, Names>> = {
  kohya: {
    fronts: [
      ...["lora_unet_mid_block_attentions_0_proj_in", "lora_te_text_model_encoder_layers_0_mlp_fc1"],
      ...["lycoris_strange_name", "lora_unet_double_blocks_0_img_attn_qkv"],
    ],
    pair: [".lora_down.weight", ".lora_up.weight"],
    others: [
      ...[
        ".lora_mid.weight",
        ".alpha",
        ".alpha",
        ".dora_scale",
        ".diff",
        ".weight",
        ".hada_w1_a",
        ".hada_w1_b",
      ],
      ...[".hada_w2_a", ".hada_w2_b", ".hada_t1", ".lokr_w1", ".lokr_w2_a", ".lokr_w2_b", ".lora_A.weight"],
    ],
  },
  diffusers: {
    fronts: ["unet.x.to_q", "transformer.y.to_k", "text_encoder.z"],
    pair: [".lora_A.weight", ".lora_B.weight"],
    others: [
      ".alpha",
      ".alpha",
      ".lora.up.weight",
      ".processor.to_q_lora.up.weight",
      ".lora_magnitude_vector",
    ],
  },
  original: {
    fronts: ["diffusion_model.blocks.0.self_attn.q", "diffusion_model.double_blocks.0.img_attn.qkv"],
    pair: [".lora_A.weight", ".lora_B.weight"],
    others: [".alpha", ".lora_down.weight", ".bias", ".weight"],
  },
  mlx: {
    fronts: ["model.layers.0.self_attn.q_proj", "model.embed_tokens"],
    pair: [".lora_a", ".lora_b"],
    others: [".m", ".weight", ".lora_a"],
    isTransposed: true,
  },
  cloneofsimo: {
    fronts: ["unet:0", "unet:1", "text_encoder:1"],
    pair: [":down", ":up"],
    others: [":rank", ":up"],
  },
};

const dimension = fc.constantFrom(0, 1, 2, 3, 4);
const value = fc.constantFrom(1, 1, 1, 0, -2, NaN, 1e30);
const shape = fc.oneof(
  fc.constant([]),
  fc.tuple(dimension, dimension),
  fc.tuple(dimension, dimension, fc.constantFrom(1, 3), fc.constantFrom(1, 3)),
  fc.array(dimension, { maxLength: 5 }),
);
/** A module with factors that fit each other, of a convolution or not. */
const module = fc.record({
  front: fc.nat(9),
  rank: fc.constantFrom(2, 2, 2, 1, 4),
  isConvolution: fc.boolean(),
  value,
});
const noise = fc.record({ front: fc.nat(9), ending: fc.nat(99), shape, value });
const configs = fc.oneof(
  { weight: 5, arbitrary: fc.constant({ fine_tune_type: "lora", lora_parameters: { scale: 2 } }) },
  {
    weight: 1,
    arbitrary: fc.dictionary(fc.constantFrom("lora_parameters", "fine_tune_type"), fc.jsonValue()),
  },
);
const metadata = fc.oneof(
  { weight: 3, arbitrary: fc.constant({}) },
  {
    weight: 1,
    arbitrary: fc.dictionary(
      fc.constantFrom("lora_adapter_metadata", "unet:0:rank", "loom.module_names"),
      fc.oneof(fc.string(), fc.json(), fc.constantFrom('{"unet.r":2}', "2", '["a.b"]')),
    ),
  },
);

function tensorsOf(
  { fronts, pair, others, isTransposed }: Names,
  modules: readonly { front: number; rank: number; isConvolution: boolean; value: number }[],
  extras: readonly { front: number; ending: number; shape: readonly number[]; value: number }[],
): Record<string, RawTensor> {
  const filled = (number: number, ...sizes: number[]) => {
    const { values } = zeros(...sizes);
    return { shape: sizes, values: Array.from(values, () => number) };
  };
  const tensors: Record<string, RawTensor> = {};
  for (const { front, rank, isConvolution, value } of modules) {
    const name = fronts[front % fronts.length]!;
    const isFlat = !isConvolution || isTransposed;
    const [a, b] = [isFlat ? [rank, 3] : [rank, 3, 3, 3], isFlat ? [4, rank] : [4, rank, 1, 1]];
    tensors[name + pair[0]] = filled(value, ...(isTransposed ? a.reverse() : a));
    tensors[name + pair[1]] = filled(value, ...(isTransposed ? b.reverse() : b));
  }
  for (const { front, ending, shape, value } of extras) {
    tensors[fronts[front % fronts.length]! + others[ending % others.length]!] = filled(value, ...shape);
  }
  return tensors;
}

for (const [layout, names] of Object.entries(NAMES)) {
  Deno.test(`openAdapter() reads or refuses any tensors under the names of ${layout}`, () =>
    inTemporaryFolder(async (folder) => {
      const outcomes = new Map<string, number>();
      let run = 0;
      await fc.assert(
        fc.asyncProperty(
          fc.array(module, { minLength: 1, maxLength: 3 }),
          fc.array(noise, { maxLength: 2 }),
          metadata,
          configs,
          fc.boolean(),
          async (modules, extras, strings, config, expand) => {
            const path = join(folder, `${run++}`);
            await Deno.mkdir(path);
            const bytes = rawFloat32File(tensorsOf(names, modules, extras), strings);
            await Deno.writeFile(join(path, "adapters.safetensors"), bytes);
            if (layout === "mlx") {
              await Deno.writeTextFile(join(path, "adapter_config.json"), JSON.stringify(config));
            }
            const outcome = await outcomeOf(path, expand);
            outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
            await Deno.remove(path, { recursive: true });
          },
        ),
        { seed: 11, numRuns: 250 },
      );
      // Inputs of which all are refused, or all by one check, would test little.
      const shares = [...outcomes].join(" ");
      assert(outcomes.get("read")! > 20, shares);
      assert(outcomes.size >= 4, shares);
    }));
}

for (const to of ["kohya", "diffusers", "mlx", "gguf", "original", "peft"] as const) {
  Deno.test(`openAdapter() reads or refuses ${to} files with any bytes changed`, () =>
    inTemporaryFolder(async (folder) => {
      const path = join(folder, "out");
      const base = join(REPOSITORY, "examples/tiny-llama/base");
      await convertAdapter(join(REPOSITORY, "examples/tiny-llama/adapters/language"), path, { to, base });
      const file = [...Deno.readDirSync(path)].find(({ name }) => /\.(safetensors|gguf)$/.test(name))!.name;
      const valid = await Deno.readFile(join(path, file));
      const header = Math.min(valid.length, 12_000);
      const change = fc.record({ at: fc.nat(header - 1), value: fc.integer({ min: 0, max: 255 }) });
      const outcomes = new Set<string>();
      await fc.assert(
        fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 3 }), async (changes) => {
          const bytes = valid.slice();
          for (const { at, value } of changes) bytes[at] = value;
          await Deno.writeFile(join(path, file), bytes);
          outcomes.add(await outcomeOf(path, false));
        }),
        { seed: 12, numRuns: 60 },
      );
      assert(outcomes.size >= 2, [...outcomes].join(" "));
    }));
}

Deno.test("openAdapter() refuses a rank that no model has before it reads a value", () =>
  inTemporaryFolder(async (folder) => {
    const path = join(folder, "x.safetensors");
    const rank = 100_000;
    const header = JSON.stringify({
      "lora_unet_a.lora_down.weight": { dtype: "F8_E4M3", shape: [rank, 1], data_offsets: [0, rank] },
      "lora_unet_a.lora_up.weight": { dtype: "F8_E4M3", shape: [1, rank], data_offsets: [rank, 2 * rank] },
    });
    await Deno.writeFile(path, rawFile(header, new Uint8Array(2 * rank)));
    const outcome = await outcomeOf(path, false);
    assert(outcome === "invalid_rank", outcome);
  }));
