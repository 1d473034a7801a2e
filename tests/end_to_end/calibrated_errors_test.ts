/** What merges that run the base model say when something is wrong. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { type CliError, type CliResult, mayMount, runCli, runInShell, startCli } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";

const EXAMPLE = repositoryPath("examples/tiny-llama");

/** A wrong setting: what it spoils in a sound one, and what must be said of it. */
interface BadCase {
  readonly name: string;
  /** Spoils the base model's folder. */
  readonly base?: (folder: string) => Promise<unknown>;
  /** Spoils the first adapter's calibration file. */
  readonly calibration?: (path: string) => Promise<unknown>;
  readonly code: string;
  /** Parts of the message, the place or the fix that the user needs. */
  readonly says: readonly string[];
}

const rows = (...texts: readonly Record<string, unknown>[]) =>
  texts.map((row) => JSON.stringify(row)).join("\n");
const LONG = "word ".repeat(400);

const CASES: readonly BadCase[] = [
  {
    name: "the calibration file is missing",
    calibration: (path) => Deno.remove(path),
    code: "missing_file",
    says: ["rows.jsonl", '{"prompt": …}'],
  },
  {
    name: "the calibration file is a folder",
    calibration: async (path) => {
      await Deno.remove(path);
      await Deno.mkdir(path);
    },
    code: "not_a_file",
    says: ["rows.jsonl is a folder, a file was expected"],
  },
  {
    name: "the calibration file is not UTF-8",
    calibration: (path) => Deno.writeFile(path, Uint8Array.of(0xff, 0xfe, 0x7b, 0x00)),
    code: "not_text",
    says: ["rows.jsonl", "UTF-8"],
  },
  {
    name: "a calibration row has no prompt",
    calibration: (path) => Deno.writeTextFile(path, rows({ prompt: "a" }, { question: "b" })),
    code: "invalid_row",
    says: ["rows.jsonl:2", "question"],
  },
  {
    name: "a prompt is longer than the model reads, even one that is kept out",
    calibration: (path) => Deno.writeTextFile(path, rows({ prompt: "a" }, { prompt: "b" }, { prompt: LONG })),
    code: "sequence_too_long",
    says: ["rows.jsonl", "403 tokens", "256", "word word", "max_new_tokens"],
  },
  {
    name: "a text is longer than the model reads",
    calibration: (path) => Deno.writeTextFile(path, rows({ text: "a" }, { text: LONG })),
    code: "sequence_too_long",
    says: ["rows.jsonl", "403 tokens", "256"],
  },
  {
    name: "the base model's folder is missing",
    base: (folder) => Deno.remove(folder, { recursive: true }),
    code: "missing_file",
    says: ["/base/config.json"],
  },
  {
    name: "the base model is a file",
    base: async (folder) => {
      await Deno.remove(folder, { recursive: true });
      await Deno.writeTextFile(folder, "{}");
    },
    code: "not_a_directory",
    says: ["/base is a file, a folder was expected"],
  },
  {
    name: "the base model has no weights",
    base: (folder) => Deno.remove(`${folder}/model.safetensors`),
    code: "weights_missing",
    says: ["/base", "model.safetensors"],
  },
  {
    name: "a shard of the base model is missing",
    base: async (folder) => {
      await Deno.rename(`${folder}/model.safetensors`, `${folder}/model-1.safetensors`);
      const weight_map = {
        "model.norm.weight": "model-1.safetensors",
        "lm_head.weight": "model-2.safetensors",
      };
      await Deno.writeTextFile(`${folder}/model.safetensors.index.json`, JSON.stringify({ weight_map }));
    },
    code: "shard_missing",
    says: ["model-2.safetensors"],
  },
  {
    name: "the base model's weights are cut short",
    base: (folder) => Deno.truncate(`${folder}/model.safetensors`, 100_000),
    code: "metadata_incomplete_buffer",
    says: ["model.safetensors", "cut short"],
  },
  {
    name: "the base model has no tokenizer",
    base: (folder) => Deno.remove(`${folder}/tokenizer.json`),
    code: "missing_file",
    says: ["tokenizer.json"],
  },
];

/** Writes a sound setting: a copy of the base model and of a calibration file, and a recipe of two small modules. */
async function prepare(folder: string, output = "out/merged"): Promise<string> {
  for (const name of ["base", "out"]) await Deno.mkdir(`${folder}/${name}`);
  for await (const { name } of Deno.readDir(`${EXAMPLE}/base`)) {
    await Deno.copyFile(`${EXAMPLE}/base/${name}`, `${folder}/base/${name}`);
  }
  await Deno.copyFile(`${EXAMPLE}/tasks/language.train.jsonl`, `${folder}/rows.jsonl`);
  await Deno.writeTextFile(
    `${folder}/recipe.yaml`,
    `method: iteris+
base_model: base
adapters:
  - { path: ${EXAMPLE}/adapters/language, calibration: rows.jsonl }
  - { path: ${EXAMPLE}/adapters/speech, calibration: ${EXAMPLE}/tasks/speech.train.jsonl }
parameters: { samples: 2, agreement_prompts: 1, max_new_tokens: 3 }
include: ["*.layers.0.self_attn.o_proj", "*.layers.0.self_attn.v_proj"]
output: { path: ${output} }
device: software
`,
  );
  return `${folder}/recipe.yaml`;
}

/** The error object of `--json`, checked to have all four fields. */
function errorOf({ stdout, stderr }: CliResult): CliError {
  const { error } = JSON.parse(stdout) as { error: CliError };
  for (const field of ["code", "message", "fix", "where"] as const) {
    assert(error[field] !== "", `${field} of ${error.code} is empty`);
  }
  assert(!/^\s+at .*:\d+:\d+/m.test(stderr), "no stack trace");
  return error;
}

for (const { name, base, calibration, code, says } of CASES) {
  Deno.test(`a calibrated merge says what to do and leaves nothing when ${name}`, async () => {
    await withFolder(async (folder) => {
      const recipe = await prepare(folder);
      await base?.(`${folder}/base`);
      await calibration?.(`${folder}/rows.jsonl`);
      const result = await runCli(["merge", recipe, "--json"]);
      const error = errorOf(result);
      assertEquals([error.code, result.code], [code, 2], result.stderr);
      for (const part of says) assertStringIncludes(JSON.stringify(error).replaceAll('\\"', '"'), part);
      assertEquals([...Deno.readDirSync(`${folder}/out`)], []);
    });
  });
}

Deno.test("a merge is refused at once while another one writes its output, and the other is not disturbed", async () => {
  await withFolder(async (folder) => {
    const recipe = await prepare(folder);
    const first = startCli(["merge", recipe]);
    const ended = first.output();
    const isStaged = () => {
      try {
        return [...Deno.readDirSync(`${folder}/out`)].length > 0;
      } catch {
        return false;
      }
    };
    while (!isStaged()) await new Promise((resolve) => setTimeout(resolve, 2));
    // Stopped, it is there for as long as the second one looks.
    first.kill("SIGSTOP");
    const second = await runCli(["merge", recipe, "--force", "--json"]);
    first.kill("SIGCONT");
    assertEquals([errorOf(second).code, second.code], ["target_in_use", 2]);
    assertEquals((await ended).code, 0);
    assertEquals([...Deno.readDirSync(`${folder}/out`)].map(({ name }) => name), ["merged"]);
  });
});

Deno.test("a calibrated merge on a full disk says so, and leaves nothing of it", async () => {
  await withFolder(async (folder) => {
    await Deno.mkdir(`${folder}/small`);
    const recipe = await prepare(folder, "small/merged");
    const small = `${folder}/small`;
    const merge = `$LOOM merge ${recipe} --json; status=$?; echo left: $(ls -A ${small}) >&2; exit $status`;
    // Where mounting is forbidden a limit on files stands in for a full disk; it stops GPU drivers too.
    const [script, expected] = await mayMount()
      ? [
        `unshare --user --map-root-user --mount bash -c 'mount -t tmpfs -o size=24k none ${small} && { ${merge}; }'`,
        "disk_full",
      ]
      : [`trap '' XFSZ; ulimit -f 16; ${merge.replace("--json", "--device cpu --json")}`, "file_too_large"];
    const result = await runInShell(script);
    assertEquals([errorOf(result).code, result.code], [expected, 1], result.stderr);
    assertStringIncludes(result.stderr, "note: finished steps cannot be kept (");
    assert(result.stderr.trimEnd().endsWith("left:"), result.stderr);
  });
});
