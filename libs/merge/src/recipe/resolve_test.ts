import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { MergeError } from "../errors.ts";
import { METHODS } from "../methods/registry.ts";
import { parseRecipeText } from "./document.ts";
import { resolveRecipe } from "./resolve.ts";

const MINIMAL = `method: lego
adapters:
  - path: a
  - path: b
output: { path: out }
`;

function resolveText(text: string) {
  return resolveRecipe(parseRecipeText(text, "recipe.yaml"), { directory: "/recipes", methods: METHODS });
}

function failure(text: string): MergeError {
  return assertThrows(() => resolveText(text), MergeError);
}

Deno.test("resolveRecipe() fills in defaults and makes paths absolute when only the needed keys are given", () => {
  const recipe = resolveText(MINIMAL);
  assertEquals(recipe.adapters, [{ path: "/recipes/a", name: "a", weight: 1 }, {
    path: "/recipes/b",
    name: "b",
    weight: 1,
  }]);
  assertEquals(recipe.output, { path: "/recipes/out", format: "peft", dtype: "float32" });
  assertEquals([recipe.seed, recipe.device, recipe.include, recipe.exclude], [42, "auto", [], []]);
  assertEquals(recipe.parameters.output_scale, "sqrt(r/k)");
  assert(!("rank" in recipe.parameters), "a default that depends on the adapters stays open");
});

Deno.test("resolveRecipe() reads what a merge may take of memory, and refuses what is no amount", () => {
  assertEquals(resolveText(MINIMAL).memory, { weights: "auto" });
  const given = resolveText(`${MINIMAL}memory: { weights: streamed, device_gib: 14.5, host_gib: 6 }\n`);
  assertEquals(given.memory, { weights: "streamed", deviceGib: 14.5, hostGib: 6 });
  const cases = [
    ["device_gib: 0", "invalid_value", "above 0"],
    ["weights: disk", "invalid_value", "auto, resident, streamed"],
    ["device_gb: 8", "unknown_key", "device_gib"],
  ] as const;
  for (const [text, code, message] of cases) {
    const error = failure(`${MINIMAL}memory: { ${text} }\n`);
    assertEquals(error.code, code);
    assertStringIncludes(error.message, message);
    assertStringIncludes(error.where, ":6:");
  }
});

Deno.test("resolveRecipe() keeps names apart when two paths end alike", () => {
  const recipe = resolveText(
    MINIMAL.replace("path: a", "path: x/same").replace("path: b", "path: y/same/adapter_model.safetensors"),
  );
  assertEquals(recipe.adapters.map(({ name }) => name), ["same", "same-2"]);
});

Deno.test("resolveRecipe() names the nearest known key and the place when a key is unknown", () => {
  const cases: [text: string, key: string, nearest: string, where: string][] = [
    [MINIMAL + "paramters: { rank: 8 }\n", "paramters", "parameters", "recipe.yaml:6:1"],
    [MINIMAL.replace("path: b", "path: b\n    wieght: 2"), "wieght", "weight", "recipe.yaml:5:5"],
    [MINIMAL.replace("path: out", "path: out, dytpe: float16"), "dytpe", "dtype", "recipe.yaml:5:22"],
    [MINIMAL + "parameters:\n  rnak: 8\n", "rnak", "rank", "recipe.yaml:7:3"],
    [MINIMAL.replace("method:", "methid:"), "methid", "method", "recipe.yaml:1:1"],
  ];
  for (const [text, key, near, where] of cases) {
    const error = failure(text);
    assertEquals(error.code, "unknown_key");
    assertStringIncludes(error.message, `"${key}"`);
    assertStringIncludes(error.message, `did you mean "${near}"`);
    assertStringIncludes(error.where, where);
  }
});

Deno.test("resolveRecipe() says what was found and expected when a value is wrong", () => {
  const cases: [text: string, code: string, part: string][] = [
    [
      MINIMAL.replace("path: b", "path: b\n    weight: heavy"),
      "invalid_value",
      'expected a number, found "heavy"',
    ],
    [MINIMAL.replace("path: b", "path: b\n    weight: .nan"), "invalid_value", "expected a"],
    [MINIMAL.replace("path: b", "path: b\n    weight: .inf"), "invalid_value", "expected a finite number"],
    [
      MINIMAL.replace("path: b", "path: b\n    weight: 1e300"),
      "invalid_value",
      "expected a weight from -1000000 to 1000000, found 1e+300",
    ],
    [MINIMAL.replace("path: b", "path: b\n    weight: -2.0e+6"), "invalid_value", "found -2000000"],
    [MINIMAL + "device: tpu\n", "invalid_value", "expected auto, gpu, software, cpu"],
    [MINIMAL + "seed: -1\n", "invalid_value", "whole number"],
    [MINIMAL + "parameters: [1]\n", "invalid_value", "expected a map"],
    [MINIMAL.replace("method: lego\n", ""), "missing_key", "method is missing"],
    [MINIMAL.replace("output: { path: out }\n", ""), "missing_key", "output is missing"],
    ["method: lego\nadapters: []\noutput: { path: out }\n", "invalid_value", "at least one adapter"],
    [
      MINIMAL.replace("path: out", "path: out, format: gguf"),
      "missing_key",
      "output.format: gguf names the architecture of the base model, but the recipe names none",
    ],
    ["just text", "invalid_value", "expected a map"],
    [MINIMAL.replace("lego", "lgeo"), "unknown_method", 'did you mean "lego"'],
    [MINIMAL + "parameters: { rank: 0 }\n", "parameter_range", "a whole number ≥ 1 as rank, found 0"],
    [MINIMAL + "parameters: { rank: 2.5 }\n", "parameter_range", "found 2.5"],
    [MINIMAL + "parameters: { features: cooked }\n", "parameter_range", "raw, unit as features"],
  ];
  for (const [text, code, part] of cases) {
    const error = failure(text);
    assertEquals([error.code, error.blame], [code, "request"], text);
    assertStringIncludes(error.message, part);
    assert(error.fix !== "" && error.where.startsWith("recipe.yaml"), `${error.fix} | ${error.where}`);
  }
});

Deno.test("parseRecipeText() gives line and column when the YAML is broken", () => {
  const error = assertThrows(
    () => parseRecipeText("method: lego\nadapters: [1\noutput: 2\n", "r.yaml"),
    MergeError,
  );
  assertEquals(error.code, "recipe_syntax");
  assertStringIncludes(error.where, "r.yaml:3:");
});

Deno.test("parseRecipeText() reads JSON with tabs, and refuses a key given twice", () => {
  assertEquals(parseRecipeText('{\n\t"seed": 1,\n\t"include": ["*.q"]\n}', "r.json").value, {
    seed: 1,
    include: ["*.q"],
  });
  assertEquals(
    assertThrows(() => parseRecipeText("seed: 1\nseed: 2\n", "r.yaml"), MergeError).code,
    "recipe_syntax",
  );
});

const CAPTURED = `method: iteris
adapters:
  - { path: a, capture: a.npz }
  - { path: b, capture: /elsewhere/b.safetensors }
output: { path: out }
`;

Deno.test("resolveRecipe() asks for no base model when all adapters have captures", () => {
  const recipe = resolveText(CAPTURED);
  assertEquals(recipe.adapters.map(({ capture }) => capture), ["/recipes/a.npz", "/elsewhere/b.safetensors"]);
  assertEquals(recipe.parameters, { truncation: "weighted", alpha: 1e-4 });
  // Comparing methods runs one recipe with several of them.
  assertEquals(resolveText(CAPTURED.replace("iteris", "svd")).method, "svd");
});

Deno.test("resolveRecipe() refuses what captures cannot serve, and says where", () => {
  const cases: [text: string, code: string, message: string, fix: string, where: string][] = [
    [CAPTURED.replace("iteris", "iteris+"), "captures_unsupported", "iteris+ runs", "method: iteris", ":3:"],
    [CAPTURED.replace(", capture: a.npz", ""), "captures_incomplete", "a has not", "capture: path", ":3:"],
    [
      CAPTURED.replace("capture: a.npz", "capture: a.npz, calibration: a.jsonl"),
      "capture_and_calibration",
      "both",
      "keep capture:",
      ":3:",
    ],
    [
      CAPTURED + "parameters: { iterations: 1 }\n",
      "parameter_needs_model",
      "with captures iteris takes rank, truncation, alpha, adaptive_weights",
      "remove iterations",
      ":6:",
    ],
    [CAPTURED + "parameters: { alpha: auto }\n", "parameter_range", '"auto"', "one sample", ":6:"],
    [CAPTURED.replace("capture: a", "captures: a"), "unknown_key", '"capture"', "capture", ":3:"],
  ];
  for (const [text, code, message, fix, where] of cases) {
    const error = failure(text);
    assertEquals(error.code, code, error.message);
    assertStringIncludes(error.message, message);
    assertStringIncludes(error.fix, fix);
    assertStringIncludes(error.where, where);
  }
});
