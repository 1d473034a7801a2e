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
