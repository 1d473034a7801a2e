import { assert, assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { type CliError, runCli, runJson } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";

const example = (path: string) => repositoryPath(`examples/tiny-llama/${path}`);

interface Row {
  readonly label: string;
  readonly rank: number;
  readonly seconds: number;
  readonly accuracy?: Readonly<Record<string, number>>;
  readonly mean_accuracy: number | null;
  readonly output?: string;
  readonly quality: { readonly loss: number; readonly cosine_to_sources: Readonly<Record<string, number>> };
}

async function recipeIn(folder: string, parameters = "{ rank: 8 }"): Promise<string> {
  const path = `${folder}/recipe.yaml`;
  await Deno.writeTextFile(
    path,
    [
      "method: svd",
      `base_model: ${example("base")}`,
      "adapters:",
      `  - path: ${example("adapters/language")}`,
      `  - path: ${example("adapters/category")}`,
      `parameters: ${parameters}`,
      "output: { path: merged }",
    ].join("\n"),
  );
  return path;
}

Deno.test("compare puts methods side by side, with accuracy, a page of plots and the adapters kept", () =>
  withFolder(async (folder) => {
    const recipe = await recipeIn(folder);
    const { rows } = await runJson<{ rows: readonly Row[] }>([
      "compare",
      recipe,
      "--methods",
      "svd,tsv_m",
      "--data",
      example("tasks/language.test.jsonl"),
      "--limit",
      "10",
      "--report",
      `${folder}/report.html`,
      "--output",
      `${folder}/kept`,
    ]);
    assertEquals(rows.map(({ label }) => label), ["svd", "tsv_m"]);
    const [svd, tsv] = rows as [Row, Row];
    assertGreater(tsv.quality.loss, svd.quality.loss, "nothing of the same rank is closer to the sum");
    for (const { rank, accuracy, mean_accuracy, output } of rows) {
      assertEquals(rank, 8);
      assertEquals(accuracy!["language.test"], mean_accuracy!);
      assert(mean_accuracy! > 0.2, `${mean_accuracy} of ten rows, where the adapter alone has nine right`);
      assert((await Deno.stat(`${output}/adapter_model.safetensors`)).isFile);
    }
    const page = await Deno.readTextFile(`${folder}/report.html`);
    for (const text of ["tsv_m", "accuracy on language.test", "<svg"]) assertStringIncludes(page, text);
    const again = await runCli(["compare", recipe, "--output", `${folder}/kept`, "--json"]);
    assertEquals(again.code, 2);
    assertEquals((JSON.parse(again.stdout) as { error: CliError }).error.code, "target_exists");
  }));

Deno.test("compare refuses a report that would replace anything but an earlier report, before it merges", () =>
  withFolder(async (folder) => {
    const recipe = await recipeIn(folder);
    const notes = `${folder}/notes.html`;
    await Deno.writeTextFile(notes, "mine");
    const before = await Deno.readTextFile(recipe);
    for (
      const [report, code] of [
        [notes, "not_a_report"],
        [folder, "output_is_input"],
        [recipe, "output_is_input"],
        [example("tasks/language.test.jsonl"), "output_is_input"],
      ] as const
    ) {
      const { code: status, stdout, stderr } = await runCli([
        "compare",
        recipe,
        "--data",
        example("tasks/language.test.jsonl"),
        "--report",
        report,
        "--output",
        `${folder}/kept`,
        "--json",
      ]);
      assertEquals([status, (JSON.parse(stdout) as { error: CliError }).error.code], [2, code], stderr);
    }
    assertEquals([await Deno.readTextFile(notes), await Deno.readTextFile(recipe)], ["mine", before]);
    assertEquals([...Deno.readDirSync(folder)].length, 2, "no merge was begun");
    for (const output of ["one", "two"]) {
      await runJson([
        "compare",
        recipe,
        "--device",
        "cpu",
        "--output",
        `${folder}/${output}`,
        "--report",
        `${folder}/r.html`,
      ]);
    }
  }));

Deno.test("compare refuses a report in a folder that is missing or no folder before it merges", () =>
  withFolder(async (folder) => {
    const recipe = await recipeIn(folder);
    for (
      const [report, code, fix] of [
        ["nodir/c.html", "not_found", "mkdir"],
        ["recipe.yaml/c.html", "not_a_directory", "in a folder"],
      ] as const
    ) {
      const { code: status, stdout } = await runCli([
        "compare",
        recipe,
        "--output",
        `${folder}/kept`,
        "--report",
        `${folder}/${report}`,
        "--json",
      ]);
      const { error } = JSON.parse(stdout) as { error: CliError };
      assertEquals([status, error.code], [2, code], error.message);
      assertStringIncludes(error.fix, fix);
    }
    assertEquals(
      [...Deno.readDirSync(folder)].map(({ name }) => name),
      ["recipe.yaml"],
      "no merge was begun",
    );
  }));

Deno.test("compare prints the table when the report cannot be written after all, and exits with an error", () =>
  withFolder(async (folder) => {
    const recipe = await recipeIn(folder);
    const compare = (report: string, ...flags: string[]) =>
      runCli(["compare", recipe, "--device", "cpu", "--report", report, ...flags]);
    // The temporary file beside it has a longer name, which no file system takes.
    const tooLong = `${folder}/${"r".repeat(240)}.html`;
    const text = await compare(tooLong);
    assertEquals(text.code, 2, text.stderr);
    assertStringIncludes(text.stdout, "svd");
    assertStringIncludes(text.stderr, "error[invalid_path]");
    const json = await compare(tooLong, "--json");
    assertEquals([json.code, JSON.parse(json.stdout).rows.length], [2, 1], json.stderr);
    const beside = await compare(`${folder}/kept/report.html`, "--output", `${folder}/kept`);
    assertEquals(beside.code, 0, beside.stderr);
    assert((await Deno.stat(`${folder}/kept/report.html`)).isFile);
  }));

Deno.test("compare sweeps a weight, and says so when a sweep or a method cannot be read", () =>
  withFolder(async (folder) => {
    const recipe = await recipeIn(folder);
    const { rows } = await runJson<{ rows: readonly Row[] }>([
      "compare",
      recipe,
      "--device",
      "cpu",
      "--sweep",
      "adapters.0.weight=0:1:0.5",
    ]);
    assertEquals(rows.length, 3);
    const cosines = rows.map(({ quality }) => quality.cosine_to_sources.language!);
    assert(cosines[0]! < cosines[1]! && cosines[1]! < cosines[2]!, "more weight, more alike");
    for (
      const [flags, code] of [
        [["--sweep", "adapters.0.weight=1"], "sweep_syntax"],
        [["--methods", "svdd"], "unknown_method"],
        [["--sweep", "adapters.7.weight=0:1:1"], "override_target"],
      ] as const
    ) {
      const { code: status, stdout } = await runCli(["compare", recipe, ...flags, "--json"]);
      assertEquals(status, 2);
      assertEquals((JSON.parse(stdout) as { error: CliError }).error.code, code);
    }
  }));
