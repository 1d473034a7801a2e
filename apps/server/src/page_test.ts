import { assert, assertEquals } from "@std/assert";
import { parse } from "yaml";
import { recipeFromObject } from "@lora-loom/merge";
import { withServer } from "./test_support/server.ts";
import { adaptersOf } from "./page/drop.js";
import { bytesText, countText, numberText, secondsText } from "./page/format.js";
import { recipeYaml } from "./page/recipe.js";

const PAGE = new URL("./page/", import.meta.url);

Deno.test("the page is served whole, under a policy that lets it speak to its own server alone", () =>
  withServer({}, async (server) => {
    for (const { name } of Deno.readDirSync(PAGE)) {
      const response = await server.fetch(name === "index.html" ? "/" : `/${name}`);
      assertEquals(response.status, 200, name);
      const policy = response.headers.get("content-security-policy")!;
      assert(policy.includes("default-src 'none'") && policy.includes("connect-src 'self'"), policy);
      assert(!/unsafe|https?:|\*/.test(policy), policy);
      assertEquals(response.headers.get("x-content-type-options"), "nosniff");
      assertEquals(await response.text(), Deno.readTextFileSync(new URL(name, PAGE)));
    }
  }));

Deno.test("no file of the page names another host, or styles and scripts that the policy forbids", () => {
  for (const { name } of Deno.readDirSync(PAGE)) {
    const text = Deno.readTextFileSync(new URL(name, PAGE)).replaceAll("http://www.w3.org/2000/svg", "");
    assert(!/https?:\/\/|["'(]\/\/\w/.test(text), `${name} names another host`);
    assert(!/<script(?![^>]*\bsrc=)|\sstyle=|\son\w+="/.test(text), `${name} holds something inline`);
  }
});

Deno.test("the browser keeps the page's files while they stay the same", () =>
  withServer({}, async (server) => {
    const first = await server.fetch("/main.js");
    await first.body?.cancel();
    const again = await server.fetch("/main.js", {
      headers: { "if-none-match": first.headers.get("etag")! },
    });
    assertEquals([again.status, await again.text()], [304, ""]);
  }));

Deno.test("recipeYaml() writes what the command line reads back, whatever names look like", () => {
  const names = [
    "language",
    "true",
    "1.5",
    "- a",
    "a: b",
    "#x",
    'say "hi"',
    "naïve",
    "null",
    "a b (2)",
    "*",
    "e\u0301",
  ];
  for (const name of names) {
    const request = {
      method: "lego",
      base_model: name,
      adapters: [{ id: "a", weight: 1 }, { id: "b", name, weight: -0.25, calibration: "c" }],
      parameters: { rank: 8, output_scale: "sqrt(r/k)", one_per_adapter: true },
      include: ["*.q_proj", name],
      seed: 7,
      format: "mlx",
      dtype: "float16",
    };
    const recipe = recipeFromObject(parse(recipeYaml(request, (id: string) => `${id} ${name}`)), "/r");
    assertEquals(recipe.adapters.map(({ path }) => path), [`/r/adapters/a ${name}`, `/r/adapters/b ${name}`]);
    assertEquals(recipe.adapters[1]!.name, name);
    assertEquals(recipe.adapters.map(({ weight }) => weight), [1, -0.25]);
    assertEquals(recipe.adapters[1]!.calibration, `/r/c ${name}`);
    assertEquals(recipe.baseModel, `/r/${name}`);
    assertEquals([recipe.parameters.rank, recipe.parameters.one_per_adapter], [8, true]);
    assertEquals(recipe.include, ["*.q_proj", name]);
    assertEquals([recipe.seed, recipe.output], [7, { format: "mlx", dtype: "float16", path: "/r/merged" }]);
  }
});

Deno.test("adaptersOf() sorts what was dropped into adapters", () => {
  const sort = (...paths: string[]) =>
    adaptersOf(paths.map((path) => ({ path, file: {} }))).map((
      one: { name: string; files: { path: string }[] },
    ) => [
      one.name,
      ...one.files.map(({ path }) => path),
    ]);
  assertEquals(
    sort("one/adapter_config.json", "one/adapter_model.safetensors", "two/adapter_config.json", "two/x.npz"),
    [
      ["one", "one/adapter_config.json", "one/adapter_model.safetensors"],
      ["two", "two/adapter_config.json", "two/x.npz"],
    ],
  );
  assertEquals(sort("adapter_config.json", "adapter_model.safetensors", "README.md"), [
    ["adapter", "adapter_config.json", "adapter_model.safetensors"],
  ]);
  assertEquals(sort("style.safetensors", "face.safetensors", "pack.zip"), [
    ["pack", "pack.zip"],
    ["style", "style.safetensors"],
    ["face", "face.safetensors"],
  ]);
  assertEquals(sort("notes.txt", ".DS_Store", "a/image.png"), []);
});

Deno.test("numbers are written for people", () => {
  assertEquals([bytesText(0), bytesText(1023), bytesText(600_132), bytesText(3 * 2 ** 30)], [
    "0 B",
    "1023 B",
    "586 KiB",
    "3.0 GiB",
  ]);
  assertEquals([secondsText(0.44), secondsText(59.6), secondsText(61), secondsText(7260)], [
    "0.4 s",
    "60 s",
    "1 min 1 s",
    "2 h 1 min",
  ]);
  assertEquals([countText(999), countText(1500), countText(147_968), countText(7e9)], [
    "999",
    "1.5 k",
    "148 k",
    "7.0 G",
  ]);
  assertEquals([numberText(0), numberText(null), numberText(0.123456), numberText(1e-7)], [
    "0",
    "–",
    "0.1235",
    "1.00e-7",
  ]);
});
