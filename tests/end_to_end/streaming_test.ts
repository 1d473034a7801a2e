import {
  assertEquals,
  assertGreater,
  assertLess,
  assertLessOrEqual,
  assertStringIncludes,
} from "@std/assert";
import { shardModel } from "@lora-loom/testing";
import { type CliError, runCli, runJson } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";

const EXAMPLE = repositoryPath("examples/tiny-llama");
const MIB = 2 ** 20;

interface Summary {
  readonly peak_gpu_bytes: number;
  readonly predicted: {
    readonly device_bytes: number;
    readonly host_bytes: number;
    readonly read_bytes: number;
  };
}

/** A recipe over two adapters and one stage of each layer, on a base model in a folder. */
async function writeRecipe(
  folder: string,
  base: string,
  more: Readonly<Record<string, unknown>>,
): Promise<string> {
  const recipe = {
    method: "iteris+",
    base_model: base,
    adapters: ["language", "category"].map((name) => ({
      path: `${EXAMPLE}/adapters/${name}`,
      calibration: `${EXAMPLE}/tasks/${name}.train.jsonl`,
    })),
    parameters: { samples: 4, agreement_prompts: 3, max_new_tokens: 4 },
    include: ["*.self_attn.*"],
    output: { path: "out" },
    device: "software",
    ...more,
  };
  const path = `${folder}/recipe.json`;
  await Deno.writeTextFile(path, JSON.stringify(recipe));
  return path;
}

/** What a merge that is refused says; it leaves nothing behind. */
async function refusalOf(folder: string, more: Readonly<Record<string, unknown>>): Promise<CliError> {
  const path = await writeRecipe(folder, `${EXAMPLE}/base`, more);
  const { code, stdout, stderr } = await runCli(["merge", path, "--json"]);
  assertEquals(code, 2);
  assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["recipe.json"]);
  const printed = JSON.parse(stdout || stderr.trim().split("\n").at(-1)!);
  return printed.error ?? printed;
}

Deno.test("merge gives the same bytes whether weights are resident or streamed from three shards, in less memory", async () => {
  await withFolder(async (folder) => {
    const base = `${folder}/base`;
    assertEquals((await shardModel(`${EXAMPLE}/base`, base, 3)).length, 3);
    const merge = async (memory: object) => {
      const path = await writeRecipe(folder, base, { memory });
      const summary = await runJson<Summary>(["merge", path, "--force"]);
      return { ...summary, bytes: await Deno.readFile(`${folder}/out/adapter_model.safetensors`) };
    };
    const resident = await merge({ weights: "resident" });
    const streamed = await merge({ weights: "streamed", device_gib: 0.04 });
    assertEquals(streamed.bytes, resident.bytes);
    const matrices = 4 * 4 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 688 * 256);
    const embeddings = 4 * 2048 * 256;
    const saved = resident.peak_gpu_bytes - streamed.peak_gpu_bytes;
    // All but one layer at the least, of which decoding holds the folded weights too; and all but the rows of embeddings in use.
    assertGreater(saved, 0.5 * matrices);
    assertLess(saved, matrices + embeddings + 4 * MIB);
    for (const { peak_gpu_bytes, predicted } of [resident, streamed]) {
      assertLessOrEqual(peak_gpu_bytes, predicted.device_bytes);
    }
    const record = JSON.parse(await Deno.readTextFile(`${folder}/out/loom.json`));
    assertEquals(record.recipe.memory, { weights: "streamed", device_gib: 0.04 });
  });
});

Deno.test("merge says what it will need before it begins", async () => {
  await withFolder(async (folder) => {
    const path = await writeRecipe(folder, `${EXAMPLE}/base`, {
      include: ["*.layers.0.self_attn.q_proj"],
      parameters: { samples: 2, agreement_prompts: 0, max_new_tokens: 1 },
      memory: { weights: "streamed" },
    });
    const { code, stderr } = await runCli(["merge", path]);
    assertEquals(code, 0, stderr);
    const line = stderr.split("\n").find((line) => line.startsWith("needs about"))!;
    assertStringIncludes(line, "in device buffers");
    assertStringIncludes(line, "weights are streamed");
  });
});

for (
  const [code, memory, allowed] of [
    ["not_enough_device_memory", { device_gib: 0.001 }, "memory.device_gib allows 0.001 GiB"],
    ["not_enough_host_memory", { host_gib: 0.25 }, "memory.host_gib allows 0.25 GiB"],
  ] as const
) {
  Deno.test(`merge refuses with ${code} before it runs anything`, async () => {
    await withFolder(async (folder) => {
      const error = await refusalOf(folder, { memory });
      assertEquals(error.code, code);
      assertStringIncludes(error.message, allowed);
      assertStringIncludes(error.fix, "raise memory.");
    });
  });
}

for (const change of [{ parameters: { samples: 2, metric: "output" } }, { refine: { steps: 3 } }]) {
  Deno.test(`merge refuses ${JSON.stringify(change)} where weights are streamed, before it runs anything`, async () => {
    await withFolder(async (folder) => {
      const error = await refusalOf(folder, { ...change, memory: { weights: "streamed" } });
      assertEquals(error.code, "weights_streamed");
      assertStringIncludes(error.message, "needs gradients");
      assertStringIncludes(error.fix, "set memory.weights to resident");
    });
  });
}

Deno.test("merge names an unknown key of memory", async () => {
  await withFolder(async (folder) => {
    const path = await writeRecipe(folder, `${EXAMPLE}/base`, { memory: { device_gb: 8 } });
    const { code, stderr } = await runCli(["merge", path]);
    assertEquals(code, 2);
    assertStringIncludes(stderr, "device_gib");
  });
});
