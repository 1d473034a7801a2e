/** `method: iteris` from captures: the same adapter as the first solve on the model itself, and what is refused. */
import { assert, assertEquals, assertGreater, assertLess, assertStringIncludes } from "@std/assert";
import { type DenseDelta, denseDeltas, writeAdapter } from "../support/adapters.ts";
import {
  captureSafetensors,
  gramOf,
  type HostMatrix,
  largestOutputDifference,
  npzBytes,
  recordInputs,
} from "../support/captures.ts";
import { type CliError, runCli, runJson } from "../support/cli.ts";
import { repositoryPath, withFolder } from "../support/paths.ts";

const EXAMPLE = repositoryPath("examples/tiny-llama");
const BASE = `${EXAMPLE}/base`;
const TASKS = ["language", "category"] as const;
const SAMPLES = 6;

type Inputs = ReadonlyMap<string, HostMatrix>;
type Merged = Map<string, DenseDelta>;

async function textsOf(task: string): Promise<string[]> {
  const rows = (await Deno.readTextFile(`${EXAMPLE}/tasks/${task}.train.jsonl`)).split("\n").slice(
    0,
    SAMPLES,
  );
  return rows.map((row) => (JSON.parse(row) as { prompt: string }).prompt);
}

/** Modules of every width, and few enough for a CPU to merge them in a second. */
const MODULES = ["*.layers.1.self_attn.*", "*.layers.3.mlp.down_proj"];
const isMerged = (name: string) => /\.1\.self_attn\.|\.3\.mlp\.down_proj$/.test(name);

/** Recorded once for all tests: nothing of it is changed. */
const recorded = Promise.all(TASKS.map(async (task): Promise<Inputs> => {
  const inputs = await recordInputs(BASE, `${EXAMPLE}/adapters/${task}`, await textsOf(task));
  return new Map([...inputs].filter(([name]) => isMerged(name)));
}));

function renamed(inputs: Inputs, rename: (name: string) => string): Inputs {
  return new Map([...inputs].map(([name, matrix]) => [rename(name), matrix]));
}

function asGrams(inputs: Inputs): Inputs {
  const grams = new Map<HostMatrix["values"], HostMatrix>();
  return new Map([...inputs].map(([name, matrix]) => {
    if (!grams.has(matrix.values)) grams.set(matrix.values, gramOf(matrix));
    return [`${name}.gram`, grams.get(matrix.values)!];
  }));
}

/** A file for each way to write a capture. */
const FORMS: Readonly<Record<string, (inputs: Inputs) => readonly [extension: string, bytes: Uint8Array]>> = {
  "inputs in .npz": (inputs) => ["npz", npzBytes(inputs)],
  "inputs in .npz under PEFT's names": (inputs) => [
    "npz",
    npzBytes(renamed(inputs, (name) => `base_model.model.${name}.base_layer`), { compressed: true }),
  ],
  "inputs in .safetensors": (inputs) => ["safetensors", captureSafetensors(inputs)],
  "Gram matrices in .npz": (inputs) => ["npz", npzBytes(asGrams(inputs), { type: "<f8" })],
  "Gram matrices in .safetensors": (inputs) => ["safetensors", captureSafetensors(asGrams(inputs))],
};

interface CapturedRecipe {
  readonly folder: string;
  readonly captures: readonly string[];
  readonly parameters?: string;
  readonly base?: boolean;
  readonly include?: readonly string[];
  readonly method?: string;
}

function capturedRecipe(
  { folder, captures, parameters = "", base = true, include = MODULES, method = "iteris" }: CapturedRecipe,
): string {
  const adapters = TASKS.map((task, index) =>
    `  - { path: ${EXAMPLE}/adapters/${task}, weight: ${index + 1}, capture: ${captures[index]} }`
  );
  return `method: ${method}\n${base ? `base_model: ${BASE}\n` : ""}adapters:\n${adapters.join("\n")}\n` +
    `parameters: { ${parameters} }\ninclude: ${
      JSON.stringify(include)
    }\noutput: { path: ${folder}/out }\ndevice: cpu\n`;
}

async function merge(folder: string, name: string, recipe: string): Promise<Merged> {
  await Deno.writeTextFile(`${folder}/${name}.yaml`, recipe);
  await runJson(["merge", `${folder}/${name}.yaml`, "--force"]);
  return await denseDeltas(`${folder}/out`);
}

/** The first solve on the model itself: of all modules, for an adapter that runs without some of them gives others other inputs. */
async function nativeMerge(folder: string, parameters: string): Promise<Merged> {
  const adapters: string[] = [];
  for (const [index, task] of TASKS.entries()) {
    const rows = (await textsOf(task)).map((text) => JSON.stringify({ text }));
    await Deno.writeTextFile(`${folder}/${task}.jsonl`, rows.join("\n"));
    adapters.push(
      `  - { path: ${EXAMPLE}/adapters/${task}, weight: ${index + 1}, calibration: ${task}.jsonl }`,
    );
  }
  return await merge(
    folder,
    "native",
    `method: iteris\nbase_model: ${BASE}\nadapters:\n${
      adapters.join("\n")
    }\nparameters: { samples: ${SAMPLES}, ` +
      `agreement_prompts: 0, schedule: jacobi, iterations: 1, ${parameters} }\n` +
      `output: { path: ${folder}/out }\ndevice: cpu\n`,
  );
}

async function outputDifference(found: Merged, expected: Merged): Promise<number> {
  return largestOutputDifference(found, expected, await recorded);
}

async function writeCaptures(folder: string, form: string, base = ""): Promise<string[]> {
  const paths: string[] = [];
  for (const [index, inputs] of (await recorded).entries()) {
    const [extension, bytes] = FORMS[form]!(inputs);
    paths.push(`${folder}/${base}${TASKS[index]}.${extension}`);
    await Deno.writeFile(paths.at(-1)!, bytes);
  }
  return paths;
}

Deno.test("merge with iteris from captures gives the outputs of the first solve on the model", async (t) => {
  await withFolder(async (folder) => {
    const native = {
      full: await nativeMerge(folder, "rank: 12"),
      delta: await nativeMerge(folder, "adaptive_weights: delta"),
    };
    for (const form of Object.keys(FORMS)) {
      await t.step(`${form}, weighed with the base weights`, async () => {
        const captures = await writeCaptures(folder, form);
        const found = await merge(
          folder,
          "full",
          capturedRecipe({ folder, captures, parameters: "rank: 12" }),
        );
        assertLess(await outputDifference(found, native.full), 1e-5);
      });
      if (form.includes(".npz")) continue;
      await t.step(`${form}, without a base model`, async () => {
        const captures = await writeCaptures(folder, form);
        const found = await merge(folder, "delta", capturedRecipe({ folder, captures, base: false }));
        assertLess(await outputDifference(found, native.delta), 1e-5);
        // The two choices of λ differ by far more than that: the comparison can tell them apart.
        assertGreater(await outputDifference(found, native.full), 1e-3);
      });
    }
    await t.step(
      "the record names the captures and their hashes, and the warning says how tasks were weighed",
      async () => {
        const record = JSON.parse(await Deno.readTextFile(`${folder}/out/loom.json`));
        assertEquals(record.recipe.adapters[0].capture, "../language.safetensors");
        assertEquals(Object.keys(record.recipe.parameters).sort(), ["alpha", "truncation"]);
        assert(
          record.inputs[0].files.some(({ path }: { path: string }) => path === "../language.safetensors"),
        );
        assertEquals(record.warnings.map(({ code }: CliError) => code), ["delta_weights"]);
        assertLess(record.quality.output_error.merged, record.quality.output_error.sum);
      },
    );
  });
});

async function refusal(folder: string, recipe: string): Promise<CliError & { readonly exit: number }> {
  await Deno.writeTextFile(`${folder}/recipe.yaml`, recipe);
  const { code, stdout, stderr } = await runCli(["merge", `${folder}/recipe.yaml`, "--json"]);
  assert(code !== 0, stderr);
  assert(![...Deno.readDirSync(folder)].some(({ name }) => name.startsWith("out")), "nothing is left behind");
  return { ...(JSON.parse(stdout) as { error: CliError }).error, exit: code };
}

const Q = "model.layers.1.self_attn.q_proj";

/** The first adapter's capture of one module, spoilt. */
const SPOILT: Readonly<Record<string, (x: HostMatrix) => ReadonlyMap<string, HostMatrix>>> = {
  missing: (x) => new Map([["model.layers.0.self_attn.q_proj", x]]),
  narrow: (x) => new Map([[Q, { rows: 2, columns: 3, values: x.values.slice(0, 6) }]]),
  nan: (x) => new Map([[Q, { ...x, values: x.values.with(5, NaN) }]]),
  twice: (x) => new Map([[Q, x], [`base_model.model.${Q}`, x]]),
  asymmetric: (x) => {
    const gram = gramOf(x);
    return new Map([[`${Q}.gram`, { ...gram, values: gram.values.with(1, 1e6) }]]);
  },
  negative: (x) => {
    const gram = gramOf(x);
    return new Map([[`${Q}.gram`, { ...gram, values: gram.values.map((value) => -value) }]]);
  },
  weight: (x) => new Map([[`${Q}.weight`, x]]),
};

const REFUSED: readonly (readonly [
  what: keyof typeof SPOILT,
  code: string,
  message: string,
  fix: string,
])[] = [
  ["missing", "capture_module_missing", Q, "exclude"],
  ["narrow", "capture_width", "3 features, expected 256", "the base model"],
  ["nan", "capture_not_finite", "NaN", "float32"],
  ["twice", "capture_duplicate", "same module", "keep one"],
  ["asymmetric", "gram_not_symmetric", "symmetric", "x.T @ x"],
  ["negative", "gram_not_positive", "positive semidefinite", "x.T @ x"],
  ["weight", "capture_invalid", "weight", "inputs of the modules"],
];

Deno.test("merge with iteris refuses captures that it cannot use, by name", async (t) => {
  const [first, second] = await recorded;
  await withFolder(async (folder) => {
    const captures = [`${folder}/first.npz`, `${folder}/second.npz`];
    await Deno.writeFile(captures[1]!, npzBytes(new Map([[Q, second!.get(Q)!]])));
    for (const [what, code, message, fix] of REFUSED) {
      await t.step(`${what}: ${code}`, async () => {
        await Deno.writeFile(captures[0]!, npzBytes(SPOILT[what]!(first!.get(Q)!)));
        const error = await refusal(folder, capturedRecipe({ folder, captures, include: [Q] }));
        assertEquals([error.exit, error.code], [2, code], error.message);
        assertStringIncludes(error.message, message);
        assertStringIncludes(error.fix, fix);
        assertStringIncludes(error.where, code.startsWith("gram") ? "language, " : captures[0]!);
      });
    }
    await Deno.writeFile(captures[0]!, npzBytes(new Map([[Q, first!.get(Q)!]])));
    const grams = [`${folder}/gram.npz`, captures[1]!];
    await Deno.writeFile(grams[0]!, npzBytes(new Map([[`${Q}.gram`, gramOf(first!.get(Q)!)]])));
    const OPTIONS: readonly (readonly [parameters: string, code: string, message: string, fix: string])[] = [
      ["iterations: 3", "parameter_needs_model", "iterations", "remove iterations"],
      ["schedule: sweep", "parameter_needs_model", "schedule", "remove schedule"],
      ["samples: 20", "parameter_needs_model", "samples", "remove samples"],
      ["tolerance: 0.1", "parameter_needs_model", "tolerance", "remove tolerance"],
      ["agreement_prompts: 5", "parameter_needs_model", "agreement_prompts", "remove agreement_prompts"],
      ["max_new_tokens: 5", "parameter_needs_model", "max_new_tokens", "remove max_new_tokens"],
      ["alpha: auto", "parameter_range", "auto", "which rows are one sample"],
      ["drift: true", "unknown_key", "drift", "remove it"],
      ["tune: agreement", "unknown_key", "tune", "remove it"],
    ];
    for (const [parameters, code, message, fix] of OPTIONS) {
      await t.step(`${parameters}: ${code}`, async () => {
        const error = await refusal(folder, capturedRecipe({ folder, captures, parameters }));
        assertEquals([error.exit, error.code], [2, code], error.message);
        assertStringIncludes(error.message, message);
        assertStringIncludes(error.fix, fix);
      });
    }
    const RECIPES: readonly (readonly [recipe: string, code: string, fix: string])[] = [
      [capturedRecipe({ folder, captures, method: "iteris+" }), "captures_unsupported", "method: iteris"],
      [
        capturedRecipe({ folder, captures }).replace(`capture: ${captures[1]}`, "calibration: rows.jsonl"),
        "captures_incomplete",
        "capture: path",
      ],
      [
        capturedRecipe({ folder, captures }).replace("capture:", "calibration: rows.jsonl, capture:"),
        "capture_and_calibration",
        "keep capture:",
      ],
      [
        capturedRecipe({ folder, captures, base: false, parameters: "adaptive_weights: full" }),
        "base_weights_needed",
        "delta",
      ],
      [
        capturedRecipe({ folder, captures: grams, parameters: "adaptive_weights: none", include: [Q] }),
        "unknown_rows",
        "delta",
      ],
      [
        capturedRecipe({ folder, captures, include: [Q] }).replace("weight: 2", "weight: -2"),
        "weight_not_positive",
        "above 0",
      ],
      [
        capturedRecipe({ folder, captures: ["gone.npz", captures[1]!], include: [Q] }),
        "not_found",
        "path",
      ],
      [
        capturedRecipe({ folder, captures: [`${BASE}/config.json`, captures[1]!], include: [Q] }),
        "capture_unknown",
        "numpy.savez",
      ],
    ];
    for (const [recipe, code, fix] of RECIPES) {
      await t.step(code, async () => {
        const error = await refusal(folder, recipe);
        assertEquals([error.exit, error.code], [2, code], error.message);
        assertStringIncludes(error.fix, fix);
        assert(error.message.length > 0 && error.where.length > 0);
      });
    }
    await t.step("base_weight_missing", async () => {
      const name = "model.layers.9.self_attn.q_proj";
      await writeAdapter(`${folder}/other`, [{ name, inFeatures: 256, outFeatures: 256, rank: 4 }]);
      const capture = `${folder}/other.npz`;
      await Deno.writeFile(capture, npzBytes(new Map([[name, first!.get(Q)!]])));
      const error = await refusal(
        folder,
        `method: iteris\nbase_model: ${BASE}\nadapters: [{ path: other, capture: other.npz }]\noutput: { path: out }\ndevice: cpu\n`,
      );
      assertEquals([error.exit, error.code], [2, "base_weight_missing"], error.message);
      assertStringIncludes(error.fix, "adaptive_weights to delta");
      assertStringIncludes(error.where, name);
    });
  });
});

Deno.test("inspect says what a capture holds", async () => {
  await withFolder(async (folder) => {
    const [first] = await recorded;
    for (const form of ["inputs in .npz", "Gram matrices in .safetensors"]) {
      const [path] = await writeCaptures(folder, form);
      const inspection = await runJson<{ format: string; modules: Record<string, unknown>[] }>([
        "inspect",
        path!,
      ]);
      assertEquals([inspection.format, inspection.modules.length], ["capture", first!.size]);
      const q = inspection.modules.find(({ name }) => name === Q)!;
      const isGram = form.startsWith("Gram");
      assertEquals([q.kind, q.rows, q.features, q.dtype], [
        isGram ? "gram" : "inputs",
        isGram ? null : first!.get(Q)!.rows,
        256,
        "F32",
      ]);
      const { stdout } = await runCli(["inspect", path!]);
      assertStringIncludes(stdout, "capture: what modules of a base model read");
    }
    const { stdout } = await runCli(["inspect", `${BASE}/model.safetensors`, "--json"]);
    assertEquals((JSON.parse(stdout) as { error: CliError }).error.code, "unknown_layout");
  });
});
