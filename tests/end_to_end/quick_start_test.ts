import { assert, assertEquals, assertLess, assertLessOrEqual, assertStringIncludes } from "@std/assert";
import { denseDeltas, relativeDistance, sumDeltas } from "../support/adapters.ts";
import { runCli, runJson } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";

const RECIPE = repositoryPath("examples/quickstart/recipe.yaml");
const TASKS = ["language", "category", "speech", "syllables"];

/** What the contract says of `merge --json`. */
interface Summary {
  output: string;
  method: string;
  adapters: { name: string }[];
  modules: number;
  rank: number;
  device: { name: string; backend: string };
  seconds: Record<"total" | "read" | "compute" | "write", number>;
  peak_rss_bytes: number;
  peak_gpu_bytes: number;
  quality: {
    cosine_to_sources: Record<string, number>;
    cosine_to_sum: number;
    loss: number;
    best_loss: number;
  };
  warnings: unknown[];
}

Deno.test("merge makes a complete adapter of the quick start in less than 5 seconds", async () => {
  await withFolder(async (folder) => {
    const output = `${folder}/merged`;
    const { code, stdout, stderr, seconds } = await runCli(["merge", RECIPE, "--output", output]);
    console.log(`      quick start: ${seconds.toFixed(2)} s`);
    assertEquals(code, 0, stderr);
    assertLess(seconds, 5);
    assertStringIncludes(stdout, output);
    const names = [...Deno.readDirSync(output)].map(({ name }) => name).sort();
    assertEquals(names, [
      "README.md",
      "adapter_config.json",
      "adapter_model.safetensors",
      "loom.json",
      "report.html",
    ]);
    assertEquals(
      [...Deno.readDirSync(folder)].map(({ name }) => name),
      ["merged"],
      "nothing is left beside the output",
    );
  });
});

Deno.test("merge --json reports the ranks 8, 16 and 32 with the keys of the contract", async () => {
  await withFolder(async (folder) => {
    const losses: number[] = [];
    for (const rank of [8, 16, 32]) {
      const output = `${folder}/k${rank}`;
      const summary = await runJson<Summary>([
        "merge",
        RECIPE,
        "--set",
        `parameters.rank=${rank}`,
        "--output",
        output,
      ]);
      assertEquals([summary.output, summary.method, summary.modules, summary.rank], [
        output,
        "lego",
        28,
        rank,
      ]);
      assertEquals(summary.adapters.map(({ name }) => name), TASKS);
      assert(summary.device.name !== "" && ["webgpu", "cpu"].includes(summary.device.backend));
      const { total, read, compute, write } = summary.seconds;
      assert(
        total > 0 && read >= 0 && compute > 0 && write > 0 && read + compute + write <= total,
        JSON.stringify(summary.seconds),
      );
      assert(summary.peak_rss_bytes > 10e6 && summary.peak_gpu_bytes >= 0);
      assertEquals(summary.warnings, []);
      assertEquals(Object.keys(summary.quality.cosine_to_sources), TASKS);
      assert(
        summary.quality.best_loss <= summary.quality.loss + 1e-6,
        "no merge beats the best approximation",
      );
      losses.push(summary.quality.loss);
      await checkConfig(output, rank);
    }
    assert(losses[0]! > losses[1]! && losses[1]! > losses[2]!, `a higher rank loses less: ${losses}`);
  });
});

async function checkConfig(output: string, rank: number): Promise<void> {
  const config = JSON.parse(await Deno.readTextFile(`${output}/adapter_config.json`));
  assertEquals([config.peft_type, config.r, config.lora_alpha, config.use_rslora, config.bias], [
    "LORA",
    rank,
    rank,
    false,
    "none",
  ]);
  assertEquals([config.rank_pattern, config.alpha_pattern, config.modules_to_save], [{}, {}, null]);
}

Deno.test("merge gives the same adapter_model.safetensors, to the last byte, when it is run twice", async () => {
  await withFolder(async (folder) => {
    for (const name of ["first", "second"]) {
      const { code, stderr } = await runCli(["merge", RECIPE, "--output", `${folder}/${name}`]);
      assertEquals(code, 0, stderr);
    }
    const [first, second] = await Promise.all(
      ["first", "second"].map((name) => Deno.readFile(`${folder}/${name}/adapter_model.safetensors`)),
    );
    assertEquals(first, second);
  });
});

Deno.test("lego gives the sum of the deltas when k is the sum of the ranks and nothing is rescaled", async () => {
  await withFolder(async (folder) => {
    const output = `${folder}/sum`;
    const { code, stderr } = await runCli([
      ...["merge", RECIPE, "--output", output],
      ...["--set", "parameters={rank: 32, output_scale: none}", "--set", "adapters.0.weight=-0.5"],
    ]);
    assertEquals(code, 0, stderr);
    const sources = await Promise.all(
      TASKS.map((task) => denseDeltas(repositoryPath(`examples/tiny-llama/adapters/${task}`))),
    );
    const expected = sumDeltas(sources.map((deltas, index) => [deltas, index === 0 ? -0.5 : 1]));
    const distance = relativeDistance(await denseDeltas(output), expected);
    console.log(`      distance to the sum: ${distance.toExponential(1)}`);
    assertLessOrEqual(distance, 1e-5);
  });
});

Deno.test("merge records how it was made, without any request in the report", async () => {
  await withFolder(async (folder) => {
    const output = `${folder}/merged`;
    await runJson(["merge", RECIPE, "--output", output, "--set", "parameters.rank=8"]);
    const loom = JSON.parse(await Deno.readTextFile(`${output}/loom.json`));
    assertEquals([loom.recipe.method, loom.recipe.parameters.rank, loom.recipe.seed], ["lego", 8, 42]);
    assertEquals(loom.modules.length, 28);
    for (const [index, { files }] of loom.inputs.entries()) {
      for (const file of files) {
        assertEquals(file.sha256, await sha256(`${output}/${file.path}`), `${TASKS[index]} ${file.path}`);
      }
    }
    const card = await Deno.readTextFile(`${output}/README.md`);
    assert(card.startsWith("---\n") && card.includes("library_name: peft"));
    for (const task of TASKS) assertStringIncludes(card, task);
    const report = await Deno.readTextFile(`${output}/report.html`);
    assert(
      !/https?:\/\/|<script|<link|<img|@import|url\(/.test(report),
      "the report asks nothing of the network",
    );
    assertStringIncludes(report, "prefers-color-scheme: dark");
    assertEquals(report.match(/<circle/g)!.length >= 28 * 5, true);
  });
});

async function sha256(path: string): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await Deno.readFile(path)));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
