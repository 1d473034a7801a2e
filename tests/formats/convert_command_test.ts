/** `deno task convert` as users run it. */
import { assertEquals, assertLess, assertStringIncludes } from "@std/assert";
import { type CliError, runCli, runJson } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";

const ADAPTER = repositoryPath("examples/tiny-llama/adapters/speech");
const BASE = repositoryPath("examples/tiny-llama/base");

Deno.test("convert goes through every layout and back without a change of ΔW", () =>
  withFolder(async (folder) => {
    let input = ADAPTER;
    for (const to of ["kohya", "diffusers", "mlx", "gguf", "peft"]) {
      const output = `${folder}/${to}`;
      const result = await runJson<Record<string, unknown>>([
        "convert",
        input,
        output,
        "--to",
        to,
        "--base",
        BASE,
      ]);
      assertEquals([result.to, result.dtype, result.modules, result.rank], [to, "float32", 28, 8]);
      input = output;
    }
    const { overall } = await runJson<{ overall: number }>(["diff", input, ADAPTER]);
    assertLess(overall, 1e-14);
  }));

Deno.test("convert exits with 2 and says what to type when the request is wrong", () =>
  withFolder(async (folder) => {
    const wrong: readonly (readonly [args: string[], code: string, fix: string])[] = [
      [[ADAPTER, `${folder}/a.gguf`, "--to", "gguf"], "architecture_unknown", "--base DIR"],
      [[ADAPTER, `${folder}/a`, "--to", "kohia"], "flag_value", "--to kohya"],
      [[ADAPTER, `${folder}/a`, "--dtype", "int8"], "flag_value", "--dtype"],
      [[`${folder}/missing`, `${folder}/a`], "not_found", "path"],
      [[ADAPTER, folder, "--to", "kohya"], "target_exists", "--force"],
      [[ADAPTER, ADAPTER, "--to", "mlx", "--force"], "output_is_input", "another folder"],
      [[ADAPTER], "arguments", "IN OUT"],
    ];
    for (const [args, expected, fix] of wrong) {
      const { code, stdout } = await runCli(["convert", ...args, "--json"]);
      const { error } = JSON.parse(stdout) as { error: CliError };
      assertEquals([code, error.code], [2, expected], error.message);
      assertStringIncludes(error.fix, fix);
    }
  }));
