import { assert, assertEquals, assertGreater, assertLess, assertStringIncludes } from "@std/assert";
import { denseDeltas, relativeDistance, writeAdapter } from "../support/adapters.ts";
import { type CliError, runCli, runJson } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";

const EXAMPLE = repositoryPath("examples/tiny-llama");
const BASE = `${EXAMPLE}/base`;

/** A recipe over adapters of the example; small, so that a software GPU is done in seconds. */
function recipe(
  tasks: readonly string[],
  {
    method = "iteris+",
    base = BASE,
    parameters = "samples: 8, agreement_prompts: 6",
    calibration = "",
    include = "*",
  } = {},
): string {
  const adapters = tasks.map((task) =>
    `  - { path: ${EXAMPLE}/adapters/${task}, calibration: ${
      calibration || `${EXAMPLE}/tasks/${task}.train.jsonl`
    } }`
  );
  return `method: ${method}\nbase_model: ${base}\nadapters:\n${adapters.join("\n")}\n` +
    `parameters: { ${parameters} }\ninclude: ["${include}"]\noutput: { path: out }\n`;
}

interface Shares {
  readonly tasks: Record<string, number>;
  readonly mean: number;
}

interface Merged {
  readonly rank: number;
  readonly modules: number;
  readonly peak_gpu_bytes: number;
  readonly quality: {
    readonly output_error: Record<"merged" | "sum" | "mean", number>;
    readonly agreement?: Record<"merged" | "sum" | "mean", Shares>;
  };
}

async function mergeIn(folder: string, text: string, flags: readonly string[] = []): Promise<Merged> {
  await Deno.writeTextFile(`${folder}/recipe.yaml`, text);
  return await runJson<Merged>(["merge", `${folder}/recipe.yaml`, ...flags]);
}

async function failIn(
  folder: string,
  text: string,
): Promise<{ readonly status: number; readonly error: CliError }> {
  await Deno.writeTextFile(`${folder}/recipe.yaml`, text);
  const { code, stdout, stderr } = await runCli(["merge", `${folder}/recipe.yaml`, "--json"]);
  assert(code !== 0, "the merge should have failed");
  const printed = JSON.parse(stdout || stderr.trim().split("\n").at(-1)!);
  const left = [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) => name.includes("out"));
  assertEquals(left, [], "a failed merge left something behind");
  return { status: code, error: printed.error ?? printed };
}

for (const method of ["iteris", "iteris+"]) {
  Deno.test(`merge with ${method} measures errors and agreement, and writes the same bytes twice`, async () => {
    await withFolder(async (folder) => {
      // A part of the model: what is measured here does not need the rest, and a software GPU takes its time.
      const text = recipe(["language", "category"], { method, include: "*.layers.0.*" });
      const first = await mergeIn(folder, text);
      const bytes = await Deno.readFile(`${folder}/out/adapter_model.safetensors`);
      await mergeIn(folder, text, ["--force"]);
      assertEquals(await Deno.readFile(`${folder}/out/adapter_model.safetensors`), bytes);
      assertEquals([first.rank, first.modules], [16, 7]);
      const { output_error, agreement } = first.quality;
      assertLess(output_error.merged, Math.min(output_error.sum, output_error.mean));
      assertEquals(Object.keys(agreement!.merged.tasks), ["language", "category"]);
      const shares = Object.values(agreement!.merged.tasks);
      assertEquals(agreement!.merged.mean, (shares[0]! + shares[1]!) / 2);
    });
  });

  Deno.test(`merge with ${method} gives one adapter back as itself`, async () => {
    await withFolder(async (folder) => {
      const { quality } = await mergeIn(
        folder,
        recipe(["speech"], { method, parameters: "samples: 8, agreement_prompts: 4" }),
      );
      // Relative errors of the outputs on the calibration text.
      assertLess(quality.output_error.merged, 1e-5);
      assertEquals(quality.agreement!.merged.mean, 1);
      const distance = relativeDistance(
        await denseDeltas(`${folder}/out`),
        await denseDeltas(`${EXAMPLE}/adapters/speech`),
      );
      assertLess(distance, 1e-3);
    });
  });
}

Deno.test("merge with iteris+ takes an encoder-decoder", async () => {
  await withFolder(async (folder) => {
    const t5 = repositoryPath("examples/tiny-t5");
    // Cross-attention reads the merged encoder's output, so a part of either is in it.
    const text = recipe(["language", "category"], { base: `${t5}/base`, include: "*coder.block.0.*" })
      .replaceAll(`${EXAMPLE}/adapters`, `${t5}/adapters`);
    const { rank, modules, quality } = await mergeIn(folder, text);
    assertEquals([rank, modules], [16, 18]);
    assertLess(quality.output_error.merged, Math.min(quality.output_error.sum, quality.output_error.mean));
    assertEquals(Object.keys(quality.agreement!.merged.tasks), ["language", "category"]);
    const config = JSON.parse(await Deno.readTextFile(`${folder}/out/adapter_config.json`));
    assertEquals(config.task_type, "SEQ_2_SEQ_LM");
  });
});

Deno.test("merge with iteris+ tunes by agreement, and takes no worse setting than the default", async () => {
  await withFolder(async (folder) => {
    const parameters = "samples: 4, agreement_prompts: 8, max_new_tokens: 6";
    const include = "*.layers.1.self_attn.*";
    const plain = await mergeIn(folder, recipe(["speech", "language"], { parameters, include }));
    const tuned = await mergeIn(
      folder,
      recipe(["speech", "language"], { parameters: `${parameters}, tune: agreement`, include }),
      [
        "--force",
      ],
    );
    assert(tuned.quality.agreement!.merged.mean >= plain.quality.agreement!.merged.mean);
    const record = JSON.parse(await Deno.readTextFile(`${folder}/out/loom.json`));
    assert(
      ["alpha", "token_weight", "splices"].every((key) => typeof record.method[key] === "number"),
      "the choice is recorded",
    );
  });
});

Deno.test("merge with iteris cuts to a smaller rank with less loss than plain SVD", async () => {
  await withFolder(async (folder) => {
    const parameters = "samples: 8, agreement_prompts: 0, rank: 8";
    const merged = await mergeIn(folder, recipe(["language", "category"], { method: "iteris", parameters }));
    assertEquals(merged.rank, 8);
    assertEquals(merged.quality.agreement, undefined);
    const record = JSON.parse(await Deno.readTextFile(`${folder}/out/loom.json`));
    for (const { name, truncation_loss, plain_truncation_loss } of record.modules) {
      assertGreater(truncation_loss, 0, name);
      assert(
        truncation_loss <= plain_truncation_loss + 1e-6,
        `${name}: ${truncation_loss} against ${plain_truncation_loss}`,
      );
    }
  });
});

Deno.test("merge with iteris+ gives a rank above the sum of the adapters', which the corrections need", async () => {
  await withFolder(async (folder) => {
    const parameters = "samples: 6, agreement_prompts: 0, rank: 24";
    const include = "*.layers.1.self_attn.{q,o}_proj";
    const merged = async (method: string, extra = "") => {
      const text = recipe(["language", "category"], { method, parameters: parameters + extra, include });
      return await mergeIn(folder, text, ["--force"]);
    };
    assertEquals((await merged("iteris+")).rank, 24);
    assertEquals((await merged("iteris+", ", drift: false, stream: false")).rank, 16);
    assertEquals((await merged("iteris")).rank, 16);
  });
});

Deno.test("merge with iteris keeps its memory when there are more samples", async () => {
  await withFolder(async (folder) => {
    // More than one chunk of 2048 tokens in either case.
    const text = (samples: number) =>
      recipe(["category"], {
        method: "iteris",
        parameters: `samples: ${samples}, agreement_prompts: 0`,
        include: "*.layers.0.self_attn.*",
      });
    const few = await mergeIn(folder, text(100));
    const many = await mergeIn(folder, text(200), ["--force"]);
    assertLess(many.peak_gpu_bytes, 1.25 * few.peak_gpu_bytes);
  });
});

/** Copies the example's base model with its configuration or tokenizer changed. */
async function spoiledBase(folder: string, file: string, change: (text: string) => string): Promise<string> {
  const base = `${folder}/base`;
  await Deno.mkdir(base);
  for (const { name } of Deno.readDirSync(BASE)) await Deno.copyFile(`${BASE}/${name}`, `${base}/${name}`);
  await Deno.writeTextFile(`${base}/${file}`, change(await Deno.readTextFile(`${BASE}/${file}`)));
  return base;
}

Deno.test("merge with iteris+ refuses what it cannot run, by name, and leaves nothing behind", async (t) => {
  await t.step("a calibration file with too few rows", () =>
    withFolder(async (folder) => {
      const calibration = `${folder}/few.jsonl`;
      await Deno.writeTextFile(calibration, '{"prompt": "one"}\n{"prompt": "two"}\n');
      const { status, error } = await failIn(folder, recipe(["language"], { calibration }));
      assertEquals([status, error.code, error.where], [2, "too_few_rows", calibration]);
      assertStringIncludes(error.fix, "samples=2");
    }));

  await t.step("a calibration row of another form", () =>
    withFolder(async (folder) => {
      const calibration = `${folder}/rows.jsonl`;
      await Deno.writeTextFile(calibration, '{"question": "one"}\n');
      const { status, error } = await failIn(folder, recipe(["language"], { calibration }));
      assertEquals([status, error.code, error.where], [2, "invalid_row", `${calibration}:1`]);
    }));

  await t.step("an adapter of another base", () =>
    withFolder(async (folder) => {
      const name = "model.layers.0.self_attn.q_proj";
      await writeAdapter(`${folder}/other`, [{ name, inFeatures: 128, outFeatures: 128, rank: 4 }]);
      const text = recipe([], {}).replace(
        "adapters:\n",
        `adapters:\n  - { path: other, calibration: ${EXAMPLE}/tasks/speech.train.jsonl }\n`,
      );
      const { status, error } = await failIn(folder, text);
      assertEquals([status, error.code, error.where], [2, "adapter_mismatch", `${folder}/other`]);
      assertStringIncludes(error.message, name);
    }));

  await t.step("an architecture that cannot be run", () =>
    withFolder(async (folder) => {
      const change = (text: string) =>
        text.replace('"model_type": "llama"', '"model_type": "rwkv"').replace(
          "LlamaForCausalLM",
          "RwkvForCausalLM",
        );
      const base = await spoiledBase(folder, "config.json", change);
      const { status, error } = await failIn(folder, recipe(["language"], { base }));
      assertEquals([status, error.code], [2, "unsupported_architecture"]);
      assertStringIncludes(error.message, "Rwkv");
    }));

  await t.step(
    "a mixture of experts, which a data-free method merges all the same",
    () =>
      withFolder(async (folder) => {
        const change = (text: string) =>
          text.replace("LlamaForCausalLM", "MixtralForCausalLM").replace("{", '{ "num_local_experts": 8,');
        const base = await spoiledBase(folder, "config.json", change);
        const { status, error } = await failIn(folder, recipe(["language"], { base }));
        assertEquals([status, error.code], [2, "unsupported_architecture"]);
        assertStringIncludes(error.message, "MixtralForCausalLM, a mixture of 8 experts");
        assertStringIncludes(error.fix, "capture");
        const { rank } = await mergeIn(
          folder,
          recipe(["language", "speech"], { base, method: "lego", parameters: "rank: 8" }).replaceAll(
            /, calibration: [^ ]+/g,
            "",
          ),
        );
        assertEquals(rank, 8);
      }),
  );

  await t.step("a tokenizer with another vocabulary", () =>
    withFolder(async (folder) => {
      const base = await spoiledBase(folder, "tokenizer.json", (text) => {
        const tokenizer = JSON.parse(text);
        for (const token of Object.keys(tokenizer.model.vocab)) tokenizer.model.vocab[token] += 5000;
        return JSON.stringify(tokenizer);
      });
      const { status, error } = await failIn(folder, recipe(["language"], { base }));
      assertEquals([status, error.code], [2, "token_out_of_range"]);
    }));

  await t.step("a system without a unique solution", () =>
    withFolder(async (folder) => {
      const parameters = "samples: 1, agreement_prompts: 0, alpha: 0";
      const { status, error } = await failIn(folder, recipe(["language"], { parameters }));
      assertEquals([status, error.code], [2, "singular_system"]);
      assertStringIncludes(error.fix, "alpha");
    }));

  await t.step("a task that counts for less than nothing", () =>
    withFolder(async (folder) => {
      const text = recipe(["language"]).replace("{ path:", "{ weight: -1, path:");
      const { status, error } = await failIn(folder, text);
      assertEquals([status, error.code], [2, "weight_not_positive"]);
    }));
});
