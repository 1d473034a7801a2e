import { assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import type { Adapter } from "../../adapter.ts";
import { openAdapter } from "../../open_adapter.ts";
import {
  assertRefused,
  factors,
  inTemporaryFolder,
  type RawTensor,
  REPOSITORY,
  writePeftFolder,
  zeros,
} from "../../test_support.ts";

const Q = "model.layers.0.self_attn.q_proj";
const V = "model.layers.0.self_attn.v_proj";
const CONFIG = { r: 4, lora_alpha: 8, target_modules: ["q_proj"] };

type Tensors = Record<string, RawTensor>;

/** Writes an adapter, opens it and hands it to `check`. */
function withAdapter(
  config: Record<string, unknown>,
  tensors: Tensors,
  check: (adapter: Adapter) => void | Promise<void>,
  drop: readonly string[] = [],
): Promise<void> {
  return inTemporaryFolder(async (folder) => {
    const path = await writePeftFolder(join(folder, "some-adapter"), config, tensors);
    using adapter = await openAdapter(path, { drop });
    await check(adapter);
  });
}

function assertAdapterRefused(
  code: string,
  config: Record<string, unknown> | string,
  tensors: Tensors,
  where: string,
  drop: readonly string[] = [],
): Promise<void> {
  return inTemporaryFolder(async (folder) => {
    const path = await writePeftFolder(join(folder, "some-adapter"), config, tensors);
    const error = await assertRefused(() => openAdapter(path, { drop }), code);
    assertStringIncludes(error.where, "some-adapter");
    assertStringIncludes(`${error.where} ${error.message}`, where);
  });
}

const codes = (adapter: Adapter) => adapter.warnings.map(({ code }) => code);

Deno.test("openAdapter() reads a PEFT folder", () =>
  withAdapter(
    { ...CONFIG, base_model_name_or_path: "org/base", task_type: "CAUSAL_LM", fan_in_fan_out: true },
    factors(Q, 4, 6, 5),
    (adapter) => {
      const { name, format, baseModel, taskType, fanInFanOut, warnings } = adapter;
      assertEquals({ name, format, baseModel, taskType, fanInFanOut, warnings }, {
        name: "some-adapter",
        format: "peft",
        baseModel: "org/base",
        taskType: "CAUSAL_LM",
        fanInFanOut: true,
        warnings: [],
      });
      const { a, b, ...module } = adapter.modules.get(Q)!;
      assertEquals(module, {
        name: Q,
        rank: 4,
        inFeatures: 6,
        outFeatures: 5,
        form: { kind: "linear" },
        scale: 2,
        alpha: 8,
      });
      assertEquals([a.shape, b.shape], [[4, 6], [5, 4]]);
      assertEquals(adapter.config?.["lora_alpha"], 8);
      assertEquals(adapter.files.map((file) => file.split("/").at(-1)), [
        "adapter_config.json",
        "adapter_model.safetensors",
      ]);
    },
  ));

for (const name of ["language", "category", "speech", "syllables"]) {
  Deno.test(`openAdapter() reads the example adapter ${name}`, async () => {
    using adapter = await openAdapter(join(REPOSITORY, "examples/tiny-llama/adapters", name));
    assertEquals([adapter.name, adapter.modules.size, adapter.warnings], [name, 28, []]);
    for (const module of adapter.modules.values()) {
      assertEquals([module.rank, module.alpha, module.scale], [8, 16, 2]);
    }
  });
}

Deno.test("openAdapter() reads what PEFT merged as the mean of the example adapters' deltas", async () => {
  const open = (path: string) => openAdapter(join(REPOSITORY, path));
  using language = await open("examples/tiny-llama/adapters/language");
  using category = await open("examples/tiny-llama/adapters/category");
  using linear = await open("tests/fixtures/tiny-llama/peft/linear_mean_2");
  // PEFT's linear combination weighs A and B apart by √(weight · scale), the merged scale being 1.
  const module = linear.modules.get(Q)!;
  const parts = await Promise.all([language, category].map(({ modules }) => modules.get(Q)!.a.readFloat32()));
  const merged = await module.a.readFloat32();
  assertEquals(module.scale, 1);
  merged.forEach((value, i) => assertAlmostEquals(value, parts[0]![i]! + parts[1]![i]!, 1e-6));
});

Deno.test("openAdapter() takes PEFT's defaults r = 8 and lora_alpha = 8 when the config has neither", () =>
  withAdapter({}, factors(Q, 8, 2, 2), ({ modules }) => {
    assertEquals([modules.get(Q)!.rank, modules.get(Q)!.alpha, modules.get(Q)!.scale], [8, 8, 1]);
  }));

Deno.test("openAdapter() divides by the root of the rank when use_rslora is set", () =>
  withAdapter({ ...CONFIG, use_rslora: true }, factors(Q, 4, 2, 2), ({ modules }) => {
    assertEquals(modules.get(Q)!.scale, 4);
  }));

Deno.test("openAdapter() lets rank_pattern and alpha_pattern override r and lora_alpha by module", () =>
  withAdapter(
    {
      r: 4,
      lora_alpha: 8,
      rank_pattern: { "v_proj": 2 },
      alpha_pattern: { "layers\\.0\\.self_attn\\.q_proj": 20 },
    },
    {
      ...factors(Q, 4, 2, 2),
      ...factors(V, 2, 2, 2),
      ...factors("model.layers.1.self_attn.q_proj", 4, 2, 2),
    },
    ({ modules }) => {
      assertEquals([modules.get(Q)!.rank, modules.get(Q)!.scale], [4, 5]);
      assertEquals([modules.get(V)!.rank, modules.get(V)!.scale], [2, 4]);
      assertEquals(modules.get("model.layers.1.self_attn.q_proj")!.scale, 2);
    },
  ));

/** Which alpha a pattern key gives to a module; expected values from PEFT's get_pattern_key. */
const PATTERN_CASES: readonly [keys: Record<string, number>, module: string, alpha: number][] = [
  [{ "q_proj": 2 }, "a.q_proj", 2],
  [{ "q_proj": 2 }, "q_proj", 2],
  [{ "proj": 2 }, "a.q_proj", 8],
  [{ "q_proj": 2 }, "a.q_proj.x", 8],
  [{ "a.q": 2 }, "a_q", 2],
  [{ "q|v": 2 }, "a.v", 2],
  [{ "^a.q": 2 }, "a.q", 2],
  [{ "^q": 2 }, "a.q", 8],
  [{ ".*": 2, "q": 4 }, "a.q", 2],
  [{ "q": 4, ".*": 2 }, "a.q", 4],
  [{ "\\d+.q": 4 }, "layers.10.q", 4],
];
for (const [pattern, module, alpha] of PATTERN_CASES) {
  Deno.test(`openAdapter() gives ${module} alpha ${alpha} when alpha_pattern is ${JSON.stringify(pattern)}`, () =>
    withAdapter({ r: 1, lora_alpha: 8, alpha_pattern: pattern }, factors(module, 1, 2, 2), ({ modules }) => {
      assertEquals(modules.get(module)!.alpha, alpha);
    }));
}

Deno.test("openAdapter() takes the first pattern in the file's order, also when a key looks like a number", () =>
  inTemporaryFolder(async (folder) => {
    const config = '{"peft_type":"LORA","r":1,"lora_alpha":8,"alpha_pattern":{"to_out.0":2,"0":4}}';
    const path = await writePeftFolder(join(folder, "a"), config, {
      ...factors("x.to_out.0", 1, 2, 2),
      ...factors("y.0", 1, 2, 2),
    });
    using adapter = await openAdapter(path);
    assertEquals([...adapter.modules.values()].map(({ alpha }) => alpha), [2, 4]);
  }));

Deno.test("openAdapter() refuses a pattern that it cannot evaluate, by name", () =>
  assertAdapterRefused(
    "pattern_unsupported",
    { ...CONFIG, alpha_pattern: { "(?!q)v": 2 } },
    factors(Q, 4, 2, 2),
    "alpha_pattern (?!q)v",
  ));

Deno.test("openAdapter() reads old keys with an adapter name, and repeated prefixes with a warning", async () => {
  const old = (factor: string) => `base_model.model.base_model.model.${Q}.lora_${factor}.default.weight`;
  await withAdapter(CONFIG, { [old("A")]: zeros(4, 3), [old("B")]: zeros(2, 4) }, (adapter) => {
    assertEquals([...adapter.modules.keys()], [Q]);
    assertEquals(codes(adapter), ["prefix_repeated"]);
  });
});

Deno.test("openAdapter() warns where target_modules and the tensors disagree", async () => {
  const tensors = { ...factors(Q, 4, 2, 2), ...factors(V, 4, 2, 2) };
  await withAdapter({ ...CONFIG, target_modules: ["q_proj", "k_proj"] }, tensors, (adapter) => {
    assertEquals(codes(adapter), ["module_not_targeted", "target_without_tensors"]);
    assertStringIncludes(adapter.warnings[0]!.message, V);
    assertStringIncludes(adapter.warnings[1]!.message, "k_proj");
  });
  await withAdapter({ ...CONFIG, target_modules: ".*\\.q_proj" }, tensors, (adapter) => {
    assertEquals(codes(adapter), ["module_not_targeted"]);
  });
  await withAdapter({ ...CONFIG, target_modules: "(?!x).*" }, tensors, (adapter) => {
    assertEquals(codes(adapter), ["pattern_unsupported"]);
  });
  for (const target_modules of ["all-linear", [Q, "v_proj"], null, ".*_proj"]) {
    await withAdapter({ ...CONFIG, target_modules }, tensors, (adapter) => assertEquals(codes(adapter), []));
  }
});

Deno.test("openAdapter() warns by name of an unknown key that is set", () =>
  withAdapter(
    { ...CONFIG, use_new_trick: true, other: null, off: false, none: [] },
    factors(Q, 4, 2, 2),
    (adapter) => {
      assertEquals(codes(adapter), ["unknown_config_key"]);
      assertStringIncludes(adapter.warnings[0]!.where, "adapter_config.json use_new_trick");
    },
  ));

/** Keys that change the mathematics, with a value that is not neutral. */
const REFUSED: Record<string, unknown> = {
  use_dora: true,
  use_qalora: true,
  use_bdlora: { nblocks: 2 },
  kasa_config: { beta: 1 },
  arrow_config: { top_k: 2 },
  velora_config: { scale: 1 },
  monteclora_config: { n: 1 },
  alora_invocation_tokens: [1, 2],
  layer_replication: [[0, 4], [2, 5]],
  lora_bias: true,
  bias: "all",
  modules_to_save: ["classifier"],
  trainable_token_indices: [5],
  target_parameters: ["mlp.experts.gate_up_proj"],
  ensure_weight_tying: true,
};
for (const [key, value] of Object.entries(REFUSED)) {
  Deno.test(`openAdapter() refuses ${key} by name when it is ${JSON.stringify(value)}`, () =>
    assertAdapterRefused(
      "unsupported_config",
      { ...CONFIG, [key]: value },
      factors(Q, 4, 2, 2),
      `adapter_config.json ${key}`,
    ));
}

for (const start of ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "something_new"]) {
  Deno.test(`openAdapter() refuses init_lora_weights ${start}, which changes the base weights`, () =>
    assertAdapterRefused(
      "unsupported_config",
      { ...CONFIG, init_lora_weights: start },
      factors(Q, 4, 2, 2),
      start,
    ));
}

Deno.test("openAdapter() takes every refused key silently when it is neutral", async () => {
  const neutral = {
    ...{
      use_dora: false,
      use_qalora: false,
      use_bdlora: null,
      kasa_config: null,
      arrow_config: null,
      velora_config: null,
    },
    ...{
      monteclora_config: null,
      alora_invocation_tokens: null,
      layer_replication: null,
      lora_bias: false,
      bias: "none",
    },
    ...{
      modules_to_save: [],
      trainable_token_indices: null,
      target_parameters: [],
      ensure_weight_tying: false,
      loftq_config: {},
    },
  };
  for (const init_lora_weights of [true, false, "gaussian", "eva", "orthogonal", "mica"]) {
    await withAdapter(
      { ...CONFIG, ...neutral, init_lora_weights },
      factors(Q, 4, 2, 2),
      (adapter) => assertEquals(codes(adapter), []),
    );
  }
});

const INVALID_CONFIGS: readonly [code: string, config: Record<string, unknown> | string, where: string][] = [
  ["json_invalid", "{", "adapter_config.json"],
  ["json_invalid", "[]", "adapter_config.json"],
  ["json_invalid", '{"peft_type":"LORA","lora_dropout":NaN}', "adapter_config.json"],
  ["duplicate_key", '{"peft_type":"LORA","r":4,"r":8}', "adapter_config.json r"],
  ["peft_type_missing", '{"r":4}', "peft_type"],
  ["peft_type_unsupported", { peft_type: "ADALORA" }, "ADALORA"],
  ["peft_type_unsupported", { peft_type: "IA3" }, "IA3"],
  ["peft_type_unsupported", { peft_type: null }, "null"],
  ["config_invalid", { r: "4" }, "adapter_config.json r"],
  ["config_invalid", { lora_alpha: [8] }, "lora_alpha"],
  ["config_invalid", { use_rslora: 1 }, "use_rslora"],
  ["config_invalid", { rank_pattern: [] }, "rank_pattern"],
  ["config_invalid", { alpha_pattern: { q_proj: "8" } }, "alpha_pattern q_proj"],
  ["config_invalid", { target_modules: [1] }, "target_modules"],
  ["invalid_rank", { r: 0 }, "adapter_config.json r"],
  ["invalid_rank", { r: -4 }, "adapter_config.json r"],
  ["invalid_rank", { r: 4.5 }, "adapter_config.json r"],
  ["invalid_rank", { r: 4, rank_pattern: { q_proj: 0 } }, "rank_pattern q_proj"],
  ["alpha_zero", { r: 4, lora_alpha: 0 }, "lora_alpha"],
  ["alpha_zero", { r: 4, alpha_pattern: { q_proj: 0 } }, "alpha_pattern q_proj"],
];
for (const [code, config, where] of INVALID_CONFIGS) {
  Deno.test(`openAdapter() answers ${code} when the config is ${JSON.stringify(config)}`, () =>
    assertAdapterRefused(code, config, factors(Q, 4, 2, 2), where));
}

const key = (rest: string) => `base_model.model.${rest}`;
const INVALID_TENSORS: readonly [name: string, code: string, tensors: Tensors, where: string][] = [
  ["there are no tensors", "no_modules", {}, "adapter_model.safetensors"],
  ["A has no B", "incomplete_pair", { [key(`${Q}.lora_A.weight`)]: zeros(4, 2) }, Q],
  ["B has no A", "incomplete_pair", { [key(`${Q}.lora_B.weight`)]: zeros(2, 4) }, "lora_B but no lora_A"],
  ["A and B have unequal ranks", "shape_mismatch", {
    ...factors(Q, 4, 2, 2),
    [key(`${Q}.lora_B.weight`)]: zeros(2, 3),
  }, "[2, 3]"],
  [
    "A has one dimension",
    "shape_mismatch",
    { ...factors(Q, 4, 2, 2), [key(`${Q}.lora_A.weight`)]: zeros(4) },
    "[4]",
  ],
  ["the rank is 0", "invalid_rank", factors(Q, 0, 2, 2), Q],
  ["a width is 0", "invalid_rank", factors(Q, 4, 0, 2), Q],
  [
    "the config's r contradicts the tensors",
    "rank_mismatch",
    factors(Q, 2, 2, 2),
    "rank 2, the configuration says 4",
  ],
  ["a module is a convolution in groups", "grouped_conv", {
    [key(`${Q}.lora_A.weight`)]: zeros(4, 2, 3, 3),
    [key(`${Q}.lora_B.weight`)]: zeros(2, 2, 1, 1),
  }, "2 groups"],
  ["the ends of B's shape are not 1", "shape_mismatch", {
    [key(`${Q}.lora_A.weight`)]: zeros(4, 2, 3, 3),
    [key(`${Q}.lora_B.weight`)]: zeros(2, 4, 3, 3),
  }, "[2, 4, 3, 3]"],
  ["half of an embedding's LoRA is missing", "incomplete_pair", {
    ...factors(Q, 4, 2, 2),
    [key("model.embed_tokens.lora_embedding_A")]: zeros(4, 9),
  }, "model.embed_tokens"],
  ["an embedding's factors are no matrices", "shape_mismatch", {
    ...factors(Q, 4, 2, 2),
    [key("model.embed_tokens.lora_embedding_A")]: zeros(4, 9, 1, 1),
    [key("model.embed_tokens.lora_embedding_B")]: zeros(3, 4),
  }, "model.embed_tokens"],
  ["a module has the factors of both kinds", "duplicate_module", {
    ...factors(Q, 4, 2, 2),
    [key(`${Q}.lora_embedding_A`)]: zeros(4, 9),
  }, Q],
  ["there is a DoRA magnitude", "unsupported_tensor", {
    ...factors(Q, 4, 2, 2),
    [key(`${Q}.lora_magnitude_vector`)]: zeros(2),
  }, "DoRA"],
  ["a B factor has a bias", "unsupported_tensor", {
    ...factors(Q, 4, 2, 2),
    [key(`${Q}.lora_B.bias`)]: zeros(2),
  }, "lora_B.bias"],
  ["there is a trained bias", "unsupported_tensor", {
    ...factors(Q, 4, 2, 2),
    [key(`${Q}.base_layer.bias`)]: zeros(2),
  }, "bias"],
  ["a LoRA variant has a part of its own", "unsupported_tensor", {
    ...factors(Q, 4, 2, 2),
    [key(`${Q}.lora_diag`)]: zeros(4),
  }, "lora_diag"],
  ["a full tensor is not announced", "unannounced_tensor", {
    ...factors(Q, 4, 2, 2),
    [key("score.weight")]: zeros(2, 2),
  }, "score.weight"],
  [
    "a key has no prefix",
    "foreign_key",
    { ...factors(Q, 4, 2, 2), "lm_head.weight": zeros(2, 2) },
    "lm_head.weight",
  ],
  ["two adapters share a file", "several_adapters", {
    ...factors(Q, 4, 2, 2),
    [key(`${V}.lora_A.x.weight`)]: zeros(4, 2),
    [key(`${V}.lora_B.x.weight`)]: zeros(2, 4),
  }, "x"],
  ["a factor stands there twice", "duplicate_module", {
    ...factors(Q, 4, 2, 2),
    [key(`${Q}.lora_A.default.weight`)]: zeros(4, 2),
  }, Q],
  [
    "a name is absurdly long",
    "name_too_long",
    { [key(`${"a.lora_".repeat(1000)}`)]: zeros(1) },
    "adapter_model.safetensors",
  ],
];
for (const [name, code, tensors, where] of INVALID_TENSORS) {
  Deno.test(`openAdapter() answers ${code} when ${name}`, () =>
    assertAdapterRefused(code, CONFIG, tensors, where));
}

Deno.test("openAdapter() names PEFT's default rank when the config has no r and the tensors differ", () =>
  assertAdapterRefused("rank_mismatch", {}, factors(Q, 4, 2, 2), "PEFT's default is 8"));

Deno.test("openAdapter() refuses factors that are no floats", () =>
  inTemporaryFolder(async (folder) => {
    const path = await writePeftFolder(join(folder, "a"), CONFIG, factors(Q, 4, 2, 2));
    const file = join(path, "adapter_model.safetensors");
    const bytes = await Deno.readFile(file);
    const text = new TextDecoder("latin1").decode(bytes).replaceAll('"F32"', '"I32"');
    await Deno.writeFile(file, Uint8Array.from(text, (character) => character.charCodeAt(0)));
    await assertRefused(() => openAdapter(path), "unsupported_dtype");
  }));

const DROPPED: readonly [drop: string, config: Record<string, unknown>, extra: Tensors][] = [
  ["modules_to_save", { modules_to_save: ["score"] }, { [key("score.weight")]: zeros(2, 2) }],
  ["lora_bias", { lora_bias: true }, { [key(`${Q}.lora_B.bias`)]: zeros(2) }],
  ["bias", { bias: "all" }, { [key(`${Q}.base_layer.bias`)]: zeros(2) }],
  ["*.embed_tokens", {}, {
    [key("model.embed_tokens.lora_embedding_A")]: zeros(4, 9),
    [key("model.embed_tokens.lora_embedding_B")]: zeros(3, 4),
  }],
  ["trainable_token_indices", { trainable_token_indices: [1] }, {
    [key("model.embed_tokens.token_adapter.trainable_tokens_delta")]: zeros(1, 4),
  }],
  ["score.weight", {}, { [key("score.weight")]: zeros(2, 2) }],
];
for (const [drop, config, extra] of DROPPED) {
  Deno.test(`openAdapter() drops what drop: [${drop}] names, with a warning for each`, () =>
    withAdapter({ ...CONFIG, ...config }, { ...factors(Q, 4, 2, 2), ...extra }, (adapter) => {
      assertEquals([...adapter.modules.keys()], [Q]);
      assertEquals(
        codes(adapter),
        Array(Object.keys(config).length + Object.keys(extra).length).fill("dropped"),
      );
    }, [drop]));
}

Deno.test("openAdapter() does not drop what is part of the mathematics of every module", async () => {
  await assertAdapterRefused(
    "unsupported_config",
    { ...CONFIG, use_dora: true },
    factors(Q, 4, 2, 2),
    "use_dora",
    ["*"],
  );
  const magnitude = { ...factors(Q, 4, 2, 2), [key(`${Q}.lora_magnitude_vector`)]: zeros(2) };
  await assertAdapterRefused("unsupported_tensor", CONFIG, magnitude, "DoRA", ["*"]);
});
