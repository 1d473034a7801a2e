import { assert, assertEquals, assertLess, assertStringIncludes } from "@std/assert";
import {
  denseDeltas,
  type ModuleSpec,
  peftConfig,
  randomFactors,
  relativeDistance,
  writeAdapter,
} from "../support/adapters.ts";
import { runCli, runJson } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";
import { safetensorsBytes } from "../support/safetensors.ts";

const adapterPath = (task: string) => repositoryPath(`examples/tiny-llama/adapters/${task}`);

interface DiffResult {
  readonly overall: number;
  readonly worst: { readonly module: string; readonly distance: number };
  readonly modules: Record<string, number>;
}

Deno.test("diff agrees with dense float64 deltas between adapters that differ much", async () => {
  const [a, b] = [adapterPath("language"), adapterPath("speech")];
  const result = await runJson<DiffResult>(["diff", a, b]);
  assertEquals(Object.keys(result).slice(0, 3), ["overall", "worst", "modules"]);
  const [left, right] = [await denseDeltas(a), await denseDeltas(b)];
  assertLess(Math.abs(result.overall / relativeDistance(left, right) - 1), 1e-10);
  for (const [module, distance] of Object.entries(result.modules)) {
    const only = (deltas: typeof left) => new Map([[module, deltas.get(module)!]]);
    assertLess(Math.abs(distance / relativeDistance(only(left), only(right)) - 1), 1e-10, module);
  }
  assertEquals(result.worst.distance, Math.max(...Object.values(result.modules)));
  assertEquals(result.modules[result.worst.module], result.worst.distance);
});

Deno.test("diff sees a relative change of 1e-7 and nothing where only the factors differ", async () => {
  const modules: ModuleSpec[] = [{ name: "layers.0.q_proj", inFeatures: 64, outFeatures: 48, rank: 4 }];
  const config = peftConfig(modules);
  await withFolder(async (folder) => {
    const factors = randomFactors(modules, 3);
    const write = (name: string, values = factors, changes = {}) =>
      writeAdapter(`${folder}/${name}`, modules, {
        bytes: safetensorsBytes(values),
        config: { ...config, ...changes },
      });
    // Powers of two change no digit: A twice, B half; then alpha four times, B a quarter.
    const scaled = structuredClone(factors);
    const [keyA, keyB] = Object.keys(scaled) as [string, string];
    scaled[keyA]!.values.forEach((value, index) => scaled[keyA]!.values[index] = 2 * value);
    scaled[keyB]!.values.forEach((value, index) => scaled[keyB]!.values[index] = value / 8);
    await write("plain");
    await write("scaled", scaled, { lora_alpha: 32, alpha_pattern: {} });
    const same = await runJson<DiffResult>(["diff", `${folder}/scaled`, `${folder}/plain`]);
    assertLess(same.overall, 1e-14);
    // One entry moved by one unit in the last place of float32.
    const nudged = structuredClone(factors);
    const entry = Math.fround(nudged[keyA]!.values[5]!);
    nudged[keyA]!.values[5] = entry * (1 + 2 ** -23);
    await write("nudged", nudged);
    const result = await runJson<DiffResult>(["diff", `${folder}/nudged`, `${folder}/plain`]);
    const expected = relativeDistance(
      await denseDeltas(`${folder}/nudged`),
      await denseDeltas(`${folder}/plain`),
    );
    assert(expected > 1e-10 && expected < 1e-7, `the test moved too much: ${expected}`);
    assertLess(Math.abs(result.overall / expected - 1), 1e-3);
  });
});

Deno.test("diff reports a missing module as one whole delta", async () => {
  const modules = (names: string[]): ModuleSpec[] =>
    names.map((name) => ({ name, inFeatures: 8, outFeatures: 6, rank: 2 }));
  await withFolder(async (folder) => {
    await writeAdapter(`${folder}/one`, modules(["layers.0.q_proj"]), { seed: 1 });
    await writeAdapter(`${folder}/two`, modules(["layers.0.q_proj", "layers.0.v_proj"]), { seed: 1 });
    const { worst, modules: distances } = await runJson<DiffResult>([
      "diff",
      `${folder}/one`,
      `${folder}/two`,
    ]);
    assertEquals(worst, { module: "layers.0.v_proj", distance: 1 });
    assertLess(distances["layers.0.q_proj"]!, 1e-14);
    const { stdout } = await runCli(["diff", `${folder}/one`, `${folder}/two`]);
    assertStringIncludes(stdout, "only in B, so zero in the other: layers.0.v_proj");
  });
});

interface InspectResult {
  readonly format: string;
  readonly ranks: number[];
  readonly scales: number[];
  readonly norm: number;
  readonly modules: { name: string; norm: number; singular_values: number[]; effective_rank: number }[];
  readonly problems: { code: string }[];
  readonly serving: Record<"vllm" | "llama_cpp", { ok: boolean; reasons: string[] }>;
}

Deno.test("inspect gives ranks, scales, norms and spectra that agree with dense deltas", async () => {
  const path = adapterPath("category");
  const result = await runJson<InspectResult>(["inspect", path]);
  assertEquals([result.format, result.ranks, result.scales, result.modules.length], ["peft", [8], [2], 28]);
  assertEquals([result.problems, result.serving.vllm.ok, result.serving.llama_cpp.ok], [[], true, true]);
  const deltas = await denseDeltas(path);
  for (const { name, norm, singular_values, effective_rank } of result.modules) {
    const squares = deltas.get(name)!.values.reduce((sum, value) => sum + value * value, 0);
    assertLess(Math.abs(norm / Math.sqrt(squares) - 1), 1e-10, name);
    assertEquals(singular_values, [...singular_values].sort((x, y) => y - x));
    assert(effective_rank >= 1 && effective_rank <= 8 + 1e-9, name);
  }
});

Deno.test("inspect names problems that only the values show, and what servers would not take", async () => {
  const modules: ModuleSpec[] = [
    { name: "layers.0.q_proj", inFeatures: 8, outFeatures: 6, rank: 2 },
    { name: "layers.0.v_proj", inFeatures: 8, outFeatures: 6, rank: 3 },
  ];
  await withFolder(async (folder) => {
    const factors = randomFactors(modules, 1);
    factors["base_model.model.layers.0.q_proj.lora_B.weight"]!.values.fill(0);
    factors["base_model.model.layers.0.v_proj.lora_A.weight"]!.values[3] = NaN;
    await writeAdapter(`${folder}/odd`, modules, { bytes: safetensorsBytes(factors) });
    const { problems, serving, ranks } = await runJson<InspectResult>(["inspect", `${folder}/odd`]);
    assertEquals(
      problems.map(({ code }) => code).filter((code) => ["untrained", "not_finite"].includes(code)).sort(),
      ["not_finite", "untrained"],
    );
    assertEquals([ranks, serving.vllm.ok], [[2, 3], false]);
    assertStringIncludes(serving.vllm.reasons.join(), "different ranks");
  });
});

Deno.test("doctor names the device that merges run on and exits with 0 where one works", async () => {
  const { code, stdout, stderr } = await runCli(["doctor", "--json"]);
  assertEquals(code, 0, stderr);
  const { ok, auto, adapters } = JSON.parse(stdout);
  assertEquals([ok, auto.ok], [true, true]);
  assert(adapters.some(({ name }: { name: string }) => name === auto.device), auto.device);
  const text = await runCli(["doctor"]);
  assertStringIncludes(text.stdout, `merges run on ${auto.device}`);
});

Deno.test("doctor exits with 1 and says what to do where no Vulkan driver is", async () => {
  const { code, stdout } = await runCli(["doctor", "--json"], {
    VK_DRIVER_FILES: "/nowhere/driver.json",
    VK_ICD_FILENAMES: "/nowhere/driver.json",
  });
  assertEquals(code, 1, stdout);
  const { ok, auto, problems } = JSON.parse(stdout);
  assertEquals([ok, auto.class, auto.ok], [false, "cpu", true]);
  assert(problems.length > 0 && problems.every(({ fix }: { fix: string }) => fix.length > 10), stdout);
});

Deno.test("every command explains itself, with examples that name real files", async () => {
  const overview = await runCli(["--help"]);
  assertEquals(overview.code, 0);
  assertStringIncludes(overview.stdout, "deno task serve starts the server");
  const commands = [...overview.stdout.matchAll(/^ {2}(\w+) {2,}/gm)].map(([, name]) => name!);
  for (const name of ["merge", "inspect", "diff", "doctor"]) assert(commands.includes(name), name);
  for (const name of commands) {
    const { code, stdout } = await runCli([name, "--help"]);
    assertEquals(code, 0);
    for (const line of stdout.split("\n")) assert(line.split("repeated").length <= 2, line);
    for (const part of [`usage: deno task ${name}`, "--json", "--quiet", "examples:"]) {
      assertStringIncludes(stdout, part);
    }
    for (const [path] of stdout.matchAll(/examples\/[\w./-]+/g)) {
      const isMade = path.startsWith("examples/quickstart/merged");
      assert(isMade || Deno.statSync(repositoryPath(path)), path);
    }
  }
});

Deno.test("a negative number is the value of the flag before it", async () => {
  const { code, stdout } = await runCli([
    "eval",
    "--model",
    repositoryPath("examples/tiny-llama/base"),
    "--data",
    repositoryPath("examples/tiny-llama/tasks/language.test.jsonl"),
    "--limit",
    "-3",
    "--json",
  ]);
  const { error } = JSON.parse(stdout);
  assertEquals([code, error.code], [2, "invalid_flag"], stdout);
  assertStringIncludes(error.message, '--limit takes a whole number of at least 1, found "-3"');
});

Deno.test("the runner leads from a misspelt command to the right one, and from none to the list", async () => {
  const misspelt = await runCli(["merg"]);
  assertEquals(misspelt.code, 2);
  assertStringIncludes(misspelt.stderr, 'did you mean "merge"?');
  const none = await runCli([]);
  assertEquals(none.code, 2);
  assertStringIncludes(none.stdout, "commands:");
});

Deno.test("merge --quiet prints the result alone, and progress never reaches standard output", async () => {
  await withFolder(async (folder) => {
    const recipe = repositoryPath("examples/quickstart/recipe.yaml");
    const quiet = await runCli(["merge", recipe, "--device", "cpu", "--output", `${folder}/a`, "--quiet"]);
    assertEquals([quiet.code, quiet.stderr], [0, ""]);
    assert(quiet.stdout.startsWith(`${folder}/a\n`));
    const json = await runCli(["merge", recipe, "--device", "cpu", "--output", `${folder}/b`, "--json"]);
    assertEquals(json.stdout.trimEnd().split("\n").length, 1);
    assertStringIncludes(json.stderr, "merging 28 modules");
  });
});
