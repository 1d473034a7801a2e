import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import type { Adapter, LoraModule } from "@lora-loom/formats";
import { MergeError } from "../errors.ts";
import { METHODS } from "../methods/registry.ts";
import { recipeFromObject } from "../recipe/load.ts";
import { planMerge } from "./plan.ts";

type Sizes = readonly [name: string, out: number, inFeatures: number, rank: number];

/** An adapter that was never on a disk: planning looks at nothing but descriptions. */
function adapter(name: string, sizes: readonly Sizes[], baseModel?: string): Adapter {
  const modules = new Map(sizes.map(([module, outFeatures, inFeatures, rank]) => {
    const unread = undefined as unknown as LoraModule["a"];
    return [module, {
      name: module,
      rank,
      inFeatures,
      outFeatures,
      scale: 1,
      alpha: rank,
      a: unread,
      b: unread,
    }];
  }));
  return {
    name,
    path: `/in/${name}`,
    format: "peft",
    modules,
    baseModel,
    taskType: undefined,
    fanInFanOut: false,
    config: {},
    metadata: {},
    warnings: [],
    files: [],
    close() {},
    [Symbol.dispose]() {},
  };
}

function plan(adapters: readonly Adapter[], changes: Record<string, unknown> = {}) {
  const recipe = recipeFromObject({
    method: "cat",
    adapters: adapters.map(({ path }) => ({ path })),
    output: { path: "out" },
    ...changes,
  }, "/in");
  return planMerge(recipe, adapters, METHODS.get(recipe.method)!);
}

const X = adapter("x", [["layers.10.q", 4, 6, 2], ["layers.2.q", 4, 6, 2]]);
const Y = adapter("y", [["layers.2.q", 4, 6, 3], ["layers.10.q", 4, 6, 1], ["layers.2.v", 8, 6, 5]]);

Deno.test("planMerge() orders modules naturally and pools the adapters that have each", () => {
  const { modules, rank, warnings } = plan([X, Y]);
  assertEquals(modules.map(({ name, pooledRank, rank }) => [name, pooledRank, rank]), [
    ["layers.2.q", 5, 5],
    ["layers.2.v", 5, 5],
    ["layers.10.q", 3, 3],
  ]);
  assertEquals(rank, 5);
  assertEquals(modules[1]!.sources.map(({ adapter }) => adapter), [1]);
  assertEquals(warnings.map(({ code, where }) => [code, where]), [["modules_missing", "/in/x"]]);
  assertStringIncludes(warnings[0]!.message, "1 of 3 modules (layers.2.v)");
});

Deno.test("planMerge() plans the same when the adapters come in another order", () => {
  const names = (adapters: readonly Adapter[]) =>
    plan(adapters).modules.map(({ name, pooledRank }) => [name, pooledRank]);
  assertEquals(names([X, Y]), names([Y, X]));
});

Deno.test("planMerge() keeps what include names and exclude does not", () => {
  const names = (changes: Record<string, unknown>) => plan([X, Y], changes).modules.map(({ name }) => name);
  assertEquals(names({ include: ["*.q"] }), ["layers.2.q", "layers.10.q"]);
  assertEquals(names({ include: ["*.q", "*.v"], exclude: ["layers.2.*"] }), ["layers.10.q"]);
  assertEquals(plan([X], { exclude: ["*.k"] }).warnings.map(({ code }) => code), ["pattern_without_match"]);
});

Deno.test("planMerge() warns when the adapters name different base models, and keeps the name they agree on", () => {
  const named = (baseModel?: string) => adapter("z", [["q", 2, 2, 1]], baseModel);
  assertEquals(plan([named("org/a"), named("org/b")]).warnings.map(({ code }) => code), [
    "base_models_differ",
  ]);
  assertEquals(plan([named("org/a"), named()]).baseModelName, "org/a");
  assertEquals(plan([named(), named()], { base_model: "base" }).baseModelName, "/in/base");
});

Deno.test("planMerge() names the module, both shapes and both adapters when shapes differ", () => {
  const error = assertThrows(() => plan([X, adapter("z", [["layers.2.q", 4, 7, 2]])]), MergeError);
  assertEquals([error.code, error.where], ["shape_mismatch", "layers.2.q"]);
  for (const part of ["/in/x has [4, 6]", "/in/z has [4, 7]"]) assertStringIncludes(error.message, part);
});

const ATTENTION = adapter("attention", [["model.layers.0.q_proj", 4, 6, 2]], "org/a");
const MLP = adapter("mlp", [["model.layers.0.up_proj", 9, 6, 2]], "org/a");

Deno.test("planMerge() refuses adapters for different tasks, and names both", () => {
  const forTask = (of: Adapter, taskType: string | undefined) => ({ ...of, taskType });
  assertEquals(plan([forTask(X, "CAUSAL_LM"), forTask(Y, undefined)]).modules.length, 3);
  const error = assertThrows(
    () => plan([forTask(X, "CAUSAL_LM"), forTask(Y, "SEQ_2_SEQ_LM")]),
    MergeError,
  );
  assertEquals([error.code, error.where], ["task_types_differ", "/in/y"]);
  assertStringIncludes(error.message, "x is for CAUSAL_LM, y is for SEQ_2_SEQ_LM");
});

Deno.test("planMerge() refuses adapters without a common module where base, layers or widths differ too", () => {
  const unnamed = (of: Adapter) => ({ ...of, baseModel: undefined });
  const t5 = adapter("t5", [["encoder.block.0.layer.0.q", 6, 6, 2]]);
  const wide = adapter("wide", [["model.layers.0.o_proj", 8, 8, 2]]);
  for (
    const [first, second, part] of [
      [ATTENTION, { ...MLP, baseModel: "org/b" }, "their base models are org/a and org/b"],
      [unnamed(ATTENTION), t5, "their layers are called model.layers and encoder.block"],
      [ATTENTION, wide, "no width either (6, 4 and 8)"],
    ] as const
  ) {
    const error = assertThrows(() => plan([first, second]), MergeError);
    assertEquals([error.code, error.where], ["bases_differ", "/in/attention"]);
    assertStringIncludes(error.message, `attention and ${second.name} have no module in common, and ${part}`);
  }
});

Deno.test("planMerge() warns of adapters that adapt different modules of one base", () => {
  const codes = (adapters: readonly Adapter[]) =>
    plan(adapters).warnings.map(({ code }) => code).filter((code) => code === "no_module_in_common").length;
  const unnamed = (of: Adapter) => ({ ...of, baseModel: undefined });
  const named = (of: Adapter) => ({ ...of, baseModel: "org/a" });
  assertEquals(codes([ATTENTION, MLP]), 2);
  assertEquals(codes([unnamed(ATTENTION), unnamed(MLP)]), 2);
  const encoder = adapter("encoder", [["encoder.block.0.q", 6, 6, 2]]);
  assertEquals(codes([encoder, adapter("decoder", [["decoder.block.0.q", 6, 6, 2]])]), 2);
  const unet = adapter("unet", [["unet.down_blocks.0.to_q", 4, 4, 2]]);
  assertEquals(codes([unet, adapter("text", [["text_encoder.layers.0.q_proj", 8, 8, 2]])]), 2);
  assertEquals(
    codes([named(adapter("one", [["a.0.q", 4, 4, 2]])), named(adapter("two", [["b.0.q", 8, 8, 2]]))]),
    2,
  );
  const both = adapter("both", [["model.layers.0.q_proj", 4, 6, 2], ["model.layers.0.up_proj", 9, 6, 2]]);
  assertEquals(codes([ATTENTION, MLP, both]), 0);
});

Deno.test("planMerge() warns when all weights are 0, and only then", () => {
  const codes = (...weights: number[]) => {
    const adapters = weights.map((weight) => ({ path: X.path, weight }));
    return plan([X, X], { adapters }).warnings.map(({ code }) => code);
  };
  assertEquals(codes(0, 0), ["weights_zero"]);
  assertEquals(codes(0, 0.5), []);
});

Deno.test("planMerge() refuses what no module can give", () => {
  const code = (changes: Record<string, unknown>) =>
    assertThrows(() => plan([X, Y], changes), MergeError).code;
  assertEquals(code({ include: ["*.k"] }), "no_module_matches");
  assertEquals(code({ exclude: ["*"] }), "nothing_to_merge");
  assertEquals(assertThrows(() => plan([X, { ...X, fanInFanOut: true }]), MergeError).code, "layouts_differ");
  for (const method of ["lego", "lego+", "svd", "linear"]) {
    assertEquals(code({ method, parameters: { rank: 6 } }), "rank_out_of_range", method);
    assertEquals(
      plan([X, Y], { method, parameters: { rank: 5 } }).modules.map(({ rank }) => rank),
      [5, 5, 3],
      method,
    );
  }
});

Deno.test("planMerge() refuses to protect an adapter that the recipe does not have", () => {
  const protect = (index: number) => plan([X, Y], { method: "np_lora", parameters: { protected: index } });
  assertEquals(protect(1).modules.length, 3);
  const error = assertThrows(() => protect(2), MergeError);
  assertEquals([error.code, error.where], ["parameter_range", "parameters.protected"]);
  assertStringIncludes(error.message, "0 to 1, found 2");
});

Deno.test("planMerge() gives lego twice the mean rank when none is asked for, at most the pool", () => {
  assertEquals(plan([X, Y], { method: "lego" }).modules.map(({ rank }) => rank), [5, 5, 3]);
  assertEquals(plan([X, X, X], { method: "lego" }).modules.map(({ rank }) => rank), [4, 4]);
  assertEquals(plan([X, Y], { method: "svd" }).modules.map(({ rank }) => rank), [3, 5, 2]);
});
