import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { type ModuleSpec, peftConfig, randomFactors, writeAdapter } from "../support/adapters.ts";
import { type CliError, mayMount, runCli, runInShell } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";
import { safetensorsBytes } from "../support/safetensors.ts";

const MODULES: readonly ModuleSpec[] = [
  { name: "model.layers.0.self_attn.q_proj", inFeatures: 12, outFeatures: 10, rank: 3 },
  { name: "model.layers.0.self_attn.v_proj", inFeatures: 12, outFeatures: 6, rank: 2 },
];

/** A wrong request: what it changes in a sound setting, and what must be said of it. */
interface BadCase {
  readonly name: string;
  /** Spoils the adapter in the folder `b`. */
  readonly spoil?: (folder: string) => Promise<unknown>;
  /** Instead of the sound recipe. */
  readonly recipe?: string;
  readonly flags?: readonly string[];
  readonly code: string;
  /** Parts of the message, the place or the fix that the user needs. */
  readonly says: readonly string[];
}

const RECIPE = `method: lego
adapters:
  - path: a
  - path: b
parameters: { rank: 4 }
output: { path: out }
device: cpu
`;

const sound = () => safetensorsBytes(randomFactors(MODULES, 5));
const Q_PROJ = `base_model.model.${MODULES[0]!.name}`;

/** Factors with one value of one tensor replaced. */
function withValue(key: string, index: number, value: number): Uint8Array {
  const factors = randomFactors(MODULES, 5);
  factors[key]!.values[index] = value;
  return safetensorsBytes(factors);
}

const CASES: readonly BadCase[] = [
  {
    name: "the weight file is cut short",
    spoil: (folder) => writeAdapter(folder, MODULES, { bytes: sound().subarray(0, -100) }),
    code: "metadata_incomplete_buffer",
    says: ["cut short", "adapter_model.safetensors"],
  },
  {
    name: "the weight file is empty",
    spoil: (folder) => writeAdapter(folder, MODULES, { bytes: new Uint8Array(0) }),
    code: "header_too_small",
    says: ["adapter_model.safetensors"],
  },
  {
    name: "two tensors overlap",
    spoil: (folder) =>
      writeAdapter(folder, MODULES, {
        bytes: safetensorsBytes(randomFactors(MODULES, 5), (header) => {
          const entry = header[`${Q_PROJ}.lora_B.weight`]!;
          entry.data_offsets[0] -= 4;
          entry.data_offsets[1] -= 4;
        }),
      }),
    code: "invalid_offset",
    says: ["lora_B"],
  },
  {
    name: "a factor holds NaN",
    spoil: (folder) => writeAdapter(folder, MODULES, { bytes: withValue(`${Q_PROJ}.lora_A.weight`, 7, NaN) }),
    code: "not_finite",
    says: ["lora_A", MODULES[0]!.name, "element 7", "/b"],
  },
  {
    name: "a factor holds infinity",
    spoil: (folder) =>
      writeAdapter(folder, MODULES, { bytes: withValue(`${Q_PROJ}.lora_B.weight`, 0, -Infinity) }),
    code: "not_finite",
    says: ["lora_B", MODULES[0]!.name],
  },
  {
    name: "the adapters are of different models",
    spoil: (folder) => writeAdapter(folder, MODULES.map((module) => ({ ...module, inFeatures: 16 }))),
    code: "shape_mismatch",
    says: [MODULES[0]!.name, "[10, 12]", "[10, 16]", "/a", "/b"],
  },
  {
    name: "A and B of one module do not fit",
    spoil: (folder) => {
      const factors = randomFactors(MODULES, 5);
      factors[`${Q_PROJ}.lora_B.weight`] = { shape: [10, 2], values: new Float64Array(20).fill(1) };
      return writeAdapter(folder, MODULES, { bytes: safetensorsBytes(factors) });
    },
    code: "shape_mismatch",
    says: [MODULES[0]!.name],
  },
  {
    name: "the configuration is missing",
    spoil: (folder) => Deno.remove(`${folder}/adapter_config.json`),
    code: "config_missing",
    says: ["adapter_config.json"],
  },
  {
    name: "the configuration asks for DoRA",
    spoil: (folder) => writeAdapter(folder, MODULES, { config: peftConfig(MODULES, { use_dora: true }) }),
    code: "unsupported_config",
    says: ["use_dora"],
  },
  {
    name: "an adapter is missing",
    recipe: RECIPE.replace("path: b", "path: c"),
    code: "not_found",
    says: ["/c"],
  },
  { name: "the recipe is missing", recipe: "", code: "recipe_not_found", says: ["recipe.yaml"] },
  {
    name: "the recipe is not YAML",
    recipe: RECIPE.replace("{ rank: 4 }", "{ rank: 4"),
    code: "recipe_syntax",
    says: ["recipe.yaml:6:"],
  },
  {
    name: "the recipe has an unknown key",
    recipe: RECIPE.replace("device", "devise"),
    code: "unknown_key",
    says: ['"devise"', 'did you mean "device"', "recipe.yaml:7:1"],
  },
  {
    name: "a parameter is unknown",
    flags: ["--set", "parameters.outputscale=none"],
    code: "unknown_key",
    says: ["output_scale", "--set parameters.outputscale"],
  },
  {
    name: "a key on the way to a parameter is unknown",
    flags: ["--set", "paramters.samples=10"],
    code: "unknown_key",
    says: ["parameters", '"where":"--set paramters.samples=10"'],
  },
  {
    name: "a weight is not a number on the command line",
    flags: ["--set", "adapters.0.weight=.nan"],
    code: "invalid_value",
    says: ["found NaN", "--set adapters.0.weight"],
  },
  {
    name: "a weight is no number",
    recipe: RECIPE.replace("path: b", "path: b\n    weight: much"),
    code: "invalid_value",
    says: ["adapters.1.weight", "expected a number", "recipe.yaml:5:5"],
  },
  {
    name: "the method is unknown",
    flags: ["--set", "method=leggo"],
    code: "unknown_method",
    says: ['"lego"'],
  },
  {
    name: "k is zero",
    flags: ["--set", "parameters.rank=0"],
    code: "parameter_range",
    says: ["rank", "≥ 1"],
  },
  {
    name: "k exceeds the pool",
    flags: ["--set", "parameters.rank=7"],
    code: "rank_out_of_range",
    says: ["rank 7", "add up to 6"],
  },
  {
    name: "no module passes the filter",
    flags: ["--set", "include=['*.k_proj']"],
    code: "no_module_matches",
    says: ["*.k_proj", "*.q_proj"],
  },
  {
    name: "everything is excluded",
    flags: ["--set", "exclude=['*']"],
    code: "nothing_to_merge",
    says: ["exclude"],
  },
  {
    name: "the output is an input",
    recipe: RECIPE.replace("path: out", "path: b"),
    flags: ["--force"],
    code: "output_is_input",
    says: ["/b"],
  },
  {
    name: "the output contains the inputs",
    recipe: RECIPE.replace("path: out", "path: ."),
    flags: ["--force"],
    code: "output_is_input",
    says: ["/a"],
  },
  {
    name: "the output is the recipe",
    recipe: RECIPE.replace("path: out", "path: recipe.yaml"),
    flags: ["--force"],
    code: "output_is_input",
    says: ["recipe.yaml"],
  },
  {
    name: "the output is the base model's folder",
    recipe: `${RECIPE.replace("path: out", "path: base")}\nbase_model: base\n`,
    flags: ["--force"],
    code: "output_is_input",
    says: ["/base"],
  },
  {
    name: "--force would replace what is no result",
    spoil: (b) => Deno.mkdir(`${b}/../out`).then(() => Deno.writeTextFile(`${b}/../out/thesis.txt`, "mine")),
    flags: ["--force"],
    code: "not_a_result",
    says: ["thesis.txt", "neither loom.json nor an adapter", "another output"],
  },
  {
    name: "--force would replace a file",
    spoil: (b) => Deno.writeTextFile(`${b}/../out`, "mine"),
    flags: ["--force"],
    code: "not_a_result",
    says: ["is a file", "an earlier result"],
  },
  {
    name: "a GPU is asked for but absent",
    flags: ["--device", "gpu"],
    code: "no_gpu",
    says: ["device: software"],
  },
  { name: "a flag is misspelt", flags: ["--forse"], code: "unknown_flag", says: ["--force"] },
  { name: "a flag has no value", flags: ["--device="], code: "flag_value", says: ["--device"] },
  { name: "--set is no assignment", flags: ["--set", "rank"], code: "override_syntax", says: ["key=value"] },
];

/** Names and contents of everything in a folder. */
async function snapshot(folder: string): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  for await (const entry of Deno.readDir(folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) {
      for (const [name, hash] of Object.entries(await snapshot(path))) {
        files[`${entry.name}/${name}`] = hash;
      }
    } else {files[entry.name] = String(
        await crypto.subtle.digest("SHA-256", await Deno.readFile(path)).then((digest) =>
          new Uint8Array(digest)
        ),
      );}
  }
  return files;
}

async function prepare(
  folder: string,
  { spoil, recipe = RECIPE }: Pick<BadCase, "spoil" | "recipe">,
): Promise<void> {
  await writeAdapter(`${folder}/a`, MODULES, { seed: 1 });
  await writeAdapter(`${folder}/b`, MODULES, { seed: 9 });
  await spoil?.(`${folder}/b`);
  if (recipe !== "") await Deno.writeTextFile(`${folder}/recipe.yaml`, recipe);
}

/** The error object of `--json`, checked to have all four fields and to stand on standard error too. */
function errorOf(stdout: string, stderr: string): CliError {
  const { error } = JSON.parse(stdout) as { error: CliError };
  assertEquals(Object.keys(error).sort(), ["code", "fix", "message", "where"]);
  for (const [field, text] of Object.entries(error)) {
    assert(text !== "", `${field} of ${error.code} is empty`);
  }
  assertStringIncludes(stderr, `error[${error.code}]: ${error.message}`);
  assert(!/^\s+at .*:\d+:\d+/m.test(stderr), "no stack trace");
  return error;
}

Deno.test("merge accepts the setting that the bad cases spoil", async () => {
  await withFolder(async (folder) => {
    await prepare(folder, {});
    const { code, stderr } = await runCli(["merge", `${folder}/recipe.yaml`]);
    assertEquals(code, 0, stderr);
  });
});

for (const badCase of CASES) {
  Deno.test(`merge says what to do and touches nothing when ${badCase.name}`, async () => {
    await withFolder(async (folder) => {
      await prepare(folder, badCase);
      const before = await snapshot(folder);
      const flags = badCase.flags ?? [];
      const { code, stdout, stderr } = await runCli(["merge", `${folder}/recipe.yaml`, ...flags, "--json"]);
      const error = errorOf(stdout, stderr);
      assertEquals([error.code, code], [badCase.code, 2], stderr);
      for (const part of badCase.says) {
        assertStringIncludes(JSON.stringify(error).replaceAll('\\"', '"'), part);
      }
      assertEquals(await snapshot(folder), before);
    });
  });
}

Deno.test("merge refuses an output that exists, and replaces it with --force", async () => {
  await withFolder(async (folder) => {
    await prepare(folder, {});
    await Deno.mkdir(`${folder}/out`);
    await Deno.writeTextFile(`${folder}/out/loom.json`, "{}");
    await Deno.writeTextFile(`${folder}/out/precious.txt`, "mine");
    const refused = await runCli(["merge", `${folder}/recipe.yaml`, "--json"]);
    assertEquals([refused.code, errorOf(refused.stdout, refused.stderr).code], [2, "target_exists"]);
    assertEquals(await Deno.readTextFile(`${folder}/out/precious.txt`), "mine");
    const forced = await runCli(["merge", `${folder}/recipe.yaml`, "--force"]);
    assertEquals(forced.code, 0, forced.stderr);
    const names = [...Deno.readDirSync(`${folder}/out`)].map(({ name }) => name);
    assert(names.includes("adapter_model.safetensors") && !names.includes("precious.txt"), String(names));
  });
});

Deno.test("merge leaves nothing when a file may not grow large enough", async () => {
  await withFolder(async (folder) => {
    const recipe = repositoryPath("examples/quickstart/recipe.yaml");
    // The kernel refuses to let any file of this process grow beyond 200 blocks, as a full disk or a quota would.
    const script =
      `trap '' XFSZ; ulimit -f 200; exec $LOOM merge ${recipe} --device cpu --output ${folder}/out --json`;
    const { code, stdout, stderr } = await runInShell(script);
    const error = errorOf(stdout, stderr);
    assertEquals([error.code, code], ["file_too_large", 1], stderr);
    assertEquals(await snapshot(folder), {});
  });
});

Deno.test("merge leaves nothing when the disk is full", async () => {
  await withFolder(async (folder) => {
    const merge = `$LOOM merge ${
      repositoryPath("examples/quickstart/recipe.yaml")
    } --device cpu --output ${folder}/out --json`;
    const listing = `{ ${merge}; status=$?; echo left: $(ls -A ${folder}) >&2; exit $status; }`;
    // A file system smaller than the result is a full disk. Where mounting is forbidden the limit on files stands in for it.
    const [script, expected] = await mayMount()
      ? [
        `unshare --user --map-root-user --mount bash -c 'mount -t tmpfs -o size=256k none ${folder} && ${listing}'`,
        "disk_full",
      ]
      : [`trap '' XFSZ; ulimit -f 900; ${listing}`, "file_too_large"];
    const { code, stdout, stderr } = await runInShell(script);
    assertEquals([errorOf(stdout, stderr).code, code], [expected, 1], stderr);
    assert(stderr.trimEnd().endsWith("left:"), `something was left on the disk: ${stderr}`);
  });
});
