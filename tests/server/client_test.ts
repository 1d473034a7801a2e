/** `deno task merge RECIPE --server URL`: the runner against a server that listens. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { type RunningServer, type ServerOptions, startServer } from "@lora-loom/server";
import { randomFactors, writeAdapter, writeBiasedAdapter } from "../support/adapters.ts";
import { type CliError, runCli, startCli } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";
import { safetensorsBytes } from "../support/safetensors.ts";

const ADAPTERS = repositoryPath("examples/tiny-llama/adapters");

async function writeRecipe(folder: string, extra: Record<string, unknown> = {}): Promise<string> {
  const recipe = {
    method: "lego",
    adapters: [{ path: `${ADAPTERS}/language` }, { path: `${ADAPTERS}/speech`, name: "talk", weight: 0.5 }],
    parameters: { rank: 8 },
    output: { path: "merged", dtype: "float16" },
    ...extra,
  };
  await Deno.writeTextFile(`${folder}/recipe.yaml`, JSON.stringify(recipe));
  return `${folder}/recipe.yaml`;
}

async function withServer<T>(
  options: Partial<ServerOptions>,
  body: (server: RunningServer, folder: string) => Promise<T>,
): Promise<T> {
  return await withFolder(async (folder) => {
    const server = await startServer({ data: `${folder}/data`, port: 0, device: "cpu", ...options });
    try {
      return await body(server, folder);
    } finally {
      await server.stop();
    }
  });
}

const weights = (folder: string) => Deno.readFile(`${folder}/adapter_model.safetensors`);
const bytesOf = (text: string) => new TextEncoder().encode(text);
const names = (folder: string) => [...Deno.readDirSync(folder)].map(({ name }) => name).sort();

async function refusal(
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<CliError & { exit: number }> {
  const { code, stdout, stderr } = await runCli([...args, "--json"], env);
  assert(code !== 0, stderr);
  return { ...JSON.parse(stdout).error, exit: code };
}

Deno.test("merge --server gives the same bytes as merge, and uploads each adapter once", () =>
  withServer({}, async (server, folder) => {
    const recipe = await writeRecipe(folder);
    const local = await runCli(["merge", recipe, "--device", "cpu", "--output", `${folder}/local`, "--json"]);
    assertEquals(local.code, 0, local.stderr);
    const remote = await runCli(["merge", recipe, "--server", server.url, "--json"]);
    assertEquals(remote.code, 0, remote.stderr);
    assertEquals(await weights(`${folder}/merged`), await weights(`${folder}/local`));
    assertEquals(names(`${folder}/merged`), names(`${folder}/local`));
    const [here, there] = [JSON.parse(local.stdout), JSON.parse(remote.stdout)];
    assertEquals(there.quality, here.quality);
    assertEquals([there.method, there.rank, there.modules], [here.method, here.rank, here.modules]);
    assertEquals(there.adapters, here.adapters);
    assertStringIncludes(remote.stderr, "uploading language");

    const again = await runCli(["merge", recipe, "--server", `${server.url}/`, "--force"]);
    assertEquals(again.code, 0, again.stderr);
    assert(!again.stderr.includes("uploading"), again.stderr);
    assertStringIncludes(again.stdout, "rank 8, 28 modules of 2 adapters");
  }));

Deno.test("merge --server refuses to replace what the recipe reads or the recipe itself, with --force too", () =>
  withServer({}, async (server, folder) => {
    const path = await writeBiasedAdapter(`${folder}/adapter`);
    const recipe = await writeRecipe(folder, { adapters: [{ path }], base_model: "base" });
    const before = names(path);
    for (const output of [path, folder, recipe, `${folder}/base`]) {
      const { code, exit } = await refusal([
        "merge",
        recipe,
        "--server",
        server.url,
        "--output",
        output,
        "--force",
      ]);
      assertEquals([code, exit], ["output_is_input", 2], output);
    }
    assertEquals(names(path), before);
    assertEquals(server.services.adapters.list(), []);
  }));

Deno.test("merge --server reads adapters as the recipe says, and keeps those that are read otherwise apart", () =>
  withServer({}, async (server, folder) => {
    const path = await writeBiasedAdapter(`${folder}/biased`);
    const recipeOf = (extra: object) =>
      writeRecipe(folder, { method: "svd", adapters: [{ path, ...extra }], parameters: { rank: 4 } });
    const plain = await refusal(["merge", await recipeOf({}), "--server", server.url]);
    assertEquals([plain.code, plain.exit], ["unsupported_tensor", 2]);
    const name = "model.layers.0.self_attn.q_proj.lora_B.bias";
    for (const drop of [["lora_bias"], [name]]) {
      const recipe = await recipeOf({ drop });
      const local = await runCli([
        "merge",
        recipe,
        "--device",
        "cpu",
        "--output",
        `${folder}/local`,
        "--force",
      ]);
      assertEquals(local.code, 0, local.stderr);
      const remote = await runCli(["merge", recipe, "--server", server.url, "--force"]);
      assertEquals(remote.code, 0, remote.stderr);
      assertEquals(await weights(`${folder}/merged`), await weights(`${folder}/local`));
    }
    assertEquals(server.services.adapters.list().map(({ drop }) => drop), [[name], ["lora_bias"]]);
  }));

Deno.test("merge --server runs methods that need the base model and prompts", () =>
  withServer({ models: repositoryPath("examples/tiny-llama"), device: "auto" }, async (server, folder) => {
    const task = (name: string) => repositoryPath(`examples/tiny-llama/tasks/${name}.train.jsonl`);
    const recipe = await writeRecipe(folder, {
      method: "iteris",
      base_model: repositoryPath("examples/tiny-llama/base"),
      adapters: ["language", "speech"].map((name) => ({
        path: `${ADAPTERS}/${name}`,
        calibration: task(name),
      })),
      parameters: { samples: 4, max_new_tokens: 2, agreement_prompts: 0 },
      include: ["*.v_proj"],
    });
    const local = await runCli(["merge", recipe, "--output", `${folder}/local`]);
    assertEquals(local.code, 0, local.stderr);
    const remote = await runCli(["merge", recipe, "--server", server.url]);
    assertEquals(remote.code, 0, remote.stderr);
    assertEquals(await weights(`${folder}/merged`), await weights(`${folder}/local`));
  }));

Deno.test("merge --server asks for the token by flag or environment", () =>
  withServer({ requireToken: true }, async (server, folder) => {
    const command = ["merge", await writeRecipe(folder), "--server", server.url];
    const missing = await refusal(command);
    assertEquals([missing.code, missing.exit], ["token_missing", 2]);
    assertEquals((await refusal([...command, "--token", "wrong"])).code, "token_wrong");
    assertEquals(names(folder), ["data", "recipe.yaml"]);
    const done = await runCli(command, { LORA_LOOM_TOKEN: server.token! });
    assertEquals(done.code, 0, done.stderr);
  }));

Deno.test("merge --server passes on what the server refuses, and writes nothing", () =>
  withServer({ limits: { queue: 0 } }, async (server, folder) => {
    const recipe = await writeRecipe(folder);
    const full = await refusal(["merge", recipe, "--server", server.url]);
    assertEquals([full.code, full.exit], ["queue_full", 1]);
    const base = await writeRecipe(folder, {
      method: "iteris",
      base_model: repositoryPath("examples/tiny-llama/base"),
      adapters: [{
        path: `${ADAPTERS}/language`,
        calibration: repositoryPath("examples/tiny-llama/tasks/language.test.jsonl"),
      }],
      parameters: {},
    });
    const unknown = await refusal(["merge", base, "--server", server.url]);
    assertEquals([unknown.code, unknown.exit], ["unknown_model", 2]);
    assertEquals(names(folder), ["data", "recipe.yaml"]);
  }));

Deno.test("merge --server says that nobody answers, or that the address is none", () =>
  withFolder(async (folder) => {
    const recipe = await writeRecipe(folder);
    const nobody = await refusal(["merge", recipe, "--server", "http://127.0.0.1:9"]);
    assertEquals([nobody.code, nobody.exit], ["server_unreachable", 1]);
    for (
      const [address, message, fix] of [
        ["localhost:8420", "lacks http://", "http://localhost:8420"],
        ["127.0.0.1:8455/", "lacks http://", "http://127.0.0.1:8455"],
        ["http://127.0.0.1:8455/#token=secret", "expected none of ? and #", "http://127.0.0.1:8455"],
        ["ftp://localhost", "is no server's address", "http://localhost:8420"],
      ] as const
    ) {
      const none = await refusal(["merge", recipe, "--server", address]);
      assertEquals([none.code, none.exit, none.where], ["invalid_server", 2, "--server"]);
      assertStringIncludes(none.message, message);
      assertEquals(none.fix, `write --server ${fix}`);
    }
    assertEquals(names(folder), ["recipe.yaml"]);
  }));

Deno.test("merge --server says to leave out a path below which no server is", () =>
  withServer({}, async (server, folder) => {
    const error = await refusal(["merge", await writeRecipe(folder), "--server", `${server.url}/api`]);
    assertEquals([error.code, error.exit, error.where], ["invalid_server", 2, "--server"]);
    assertStringIncludes(error.message, "the address has the path /api, expected none");
    assertEquals(error.fix, `write --server ${server.url}`);
  }));

Deno.test("merge --server names the file and line of calibration text that is none", () =>
  withServer({ models: repositoryPath("examples/tiny-llama") }, async (server, folder) => {
    const calibration = `${folder}/typo.jsonl`;
    const recipe = await writeRecipe(folder, {
      method: "iteris",
      base_model: repositoryPath("examples/tiny-llama/base"),
      adapters: [{ path: `${ADAPTERS}/language`, calibration }],
      parameters: {},
    });
    for (
      const [content, code, where, message] of [
        [bytesOf('{"prompt": "a"}\n{"prompt": '), "invalid_row", `${calibration}:2`, "line 2 is no row"],
        [bytesOf(""), "invalid_row", calibration, "the text has no rows"],
        [new Uint8Array([0xff, 0xfe]), "not_text", calibration, "not in UTF-8"],
        [undefined, "missing_file", calibration, "could not be read"],
      ] as const
    ) {
      if (content === undefined) await Deno.remove(calibration);
      else await Deno.writeFile(calibration, content);
      const error = await refusal(["merge", recipe, "--server", server.url]);
      assertEquals([error.code, error.exit, error.where], [code, 2, where]);
      assertStringIncludes(error.message, message);
    }
  }));

Deno.test("merge --server says of a damaged adapter what merge says, with the recipe's path", () =>
  withServer({}, async (server, folder) => {
    const module = { name: "model.layers.0.self_attn.q_proj", inFeatures: 64, outFeatures: 64, rank: 4 };
    const factors = randomFactors([module], 1);
    Object.values(factors)[0]!.values[5] = NaN;
    const path = await writeAdapter(`${folder}/damaged`, [module], { bytes: safetensorsBytes(factors) });
    for (const place of [path, `${path}/adapter_model.safetensors`]) {
      const adapters = [{ path: place, weight: 1 }];
      const recipe = await writeRecipe(folder, { method: "svd", adapters, parameters: { rank: 4 } });
      const here = await refusal(["merge", recipe, "--device", "cpu"]);
      const there = await refusal(["merge", recipe, "--server", server.url]);
      assertEquals(there, here);
      assertEquals([there.code, there.exit], ["not_finite", 2]);
      assertStringIncludes(there.where, path);
    }
  }));

Deno.test("merge --server cancels the merge on the server when it is interrupted", () =>
  withServer({ models: repositoryPath("examples/tiny-llama") }, async (server, folder) => {
    const calibration = repositoryPath("examples/tiny-llama/tasks/language.train.jsonl");
    const recipe = await writeRecipe(folder, {
      method: "iteris",
      base_model: repositoryPath("examples/tiny-llama/base"),
      adapters: [{ path: `${ADAPTERS}/language`, calibration }],
      parameters: { samples: 500 },
    });
    const child = startCli(["merge", recipe, "--server", server.url, "--json"]);
    const output = child.output();
    const merges = () => server.services.merges.list(1);
    while (merges()[0]?.progress?.type !== "stage") await new Promise((resolve) => setTimeout(resolve, 20));
    child.kill("SIGINT");
    const { code, stdout } = await output;
    assertEquals(code, 1);
    assertStringIncludes(new TextDecoder().decode(stdout), '"cancelled"');
    while (merges()[0]!.state === "running") await new Promise((resolve) => setTimeout(resolve, 20));
    assertEquals(merges()[0]!.state, "cancelled");
    assertEquals(names(folder), ["data", "recipe.yaml"]);
  }));

Deno.test("merge --server answers captures_on_server before it uploads anything", () =>
  withServer({}, async (server, folder) => {
    const adapters = [{ path: `${ADAPTERS}/language`, capture: "language.npz" }];
    const recipe = await writeRecipe(folder, { method: "iteris", adapters, parameters: {} });
    const error = await refusal(["merge", recipe, "--server", server.url]);
    assertEquals([error.exit, error.code, error.where], [2, "captures_on_server", `${folder}/language.npz`]);
    assertStringIncludes(error.fix, "leave --server out");
    const response = await fetch(`${server.url}/api/adapters`);
    assertEquals(await response.json(), []);
  }));
