import { assert, assertEquals } from "@std/assert";
import { CpuDevice, singularValues } from "@lora-loom/tensor";
import { denseDelta, readFixture } from "../datafree/fixtures_for_tests.ts";
import { METHODS } from "../methods/registry.ts";
import { planMerge } from "../plan/plan.ts";
import { recipeFromObject } from "../recipe/load.ts";
import { planWithChosenRanks } from "./choose_ranks.ts";
import { closeAdapters, openAdapters } from "./inputs.ts";

const EXAMPLE = new URL("../../../../examples/tiny-llama/adapters/", import.meta.url).pathname;

async function plannedRanks(method: string, rank: string): Promise<Map<string, number>> {
  const recipe = recipeFromObject({
    method,
    adapters: [{ path: "language" }, { path: "category" }],
    parameters: { rank },
    include: ["*.k_proj", "*.v_proj"],
    output: { path: "merged" },
  }, EXAMPLE);
  const adapters = await openAdapters(recipe);
  try {
    const known = METHODS.get(method)!;
    const plan = planMerge(recipe, adapters, known);
    const chosen = await planWithChosenRanks(plan, known, recipe, new CpuDevice(), undefined);
    assertEquals(chosen.rank, Math.max(...chosen.modules.map((module) => module.rank)));
    return new Map(chosen.modules.map((module) => [module.name, module.rank]));
  } finally {
    closeAdapters(adapters);
  }
}

Deno.test("planWithChosenRanks() gives each module the least rank whose energy suffices", async () => {
  const language = await readFixture("examples/tiny-llama/adapters/language");
  const category = await readFixture("examples/tiny-llama/adapters/category");
  const ranks = await plannedRanks("svd", "energy:0.9");
  assertEquals(ranks.size, 8);
  for (const [module, rank] of ranks) {
    const [x, y] = [language.get(module)!, category.get(module)!];
    const other = denseDelta(y);
    const sum = denseDelta(x).map((value, i) => value + other[i]!);
    const squares = singularValues(sum, x.outFeatures, x.inFeatures).map((sigma) => sigma ** 2);
    const part = (k: number) =>
      squares.slice(0, k).reduce((all, s) => all + s, 0) / squares.reduce((all, s) => all + s);
    assert(part(rank) >= 0.9 && part(rank - 1) < 0.9, `${module}: rank ${rank} keeps ${part(rank)}`);
  }
});

Deno.test("planWithChosenRanks() spends no more than the budget, and gives one rank to all when asked", async () => {
  const budget = [...(await plannedRanks("tsv_m", "budget:6")).values()];
  assert(budget.reduce((sum, rank) => sum + rank, 0) <= 6 * 8);
  assert(new Set(budget).size > 1, "the modules differ, and so do their ranks");
  const uniform = [...(await plannedRanks("ties", "uniform:0.8")).values()];
  assertEquals(new Set(uniform).size, 1);
});
