import { assert, assertEquals } from "@std/assert";
import { seeded } from "@lora-loom/testing";
import { chooseRanks, type ModuleSpectrum, rankLimit, rankPolicy } from "./rank_policy.ts";

const MODULES: readonly ModuleSpectrum[] = [
  { sigma: [10, 5, 1, 0.5], cost: 100 },
  { sigma: [3, 3, 3, 3], cost: 200 },
  { sigma: [0.1], cost: 50 },
];

Deno.test("rankPolicy() reads the three forms and nothing else", () => {
  assertEquals(rankPolicy("energy:0.95"), { kind: "energy", number: 0.95 });
  assertEquals(rankPolicy("uniform:1"), { kind: "uniform", number: 1 });
  assertEquals(rankPolicy("budget:8"), { kind: "budget", number: 8 });
  for (
    const other of [
      8,
      undefined,
      "energy",
      "energy:",
      "energy:0",
      "energy:1.5",
      "energy:x",
      "energy:0.5:1",
      "rank:8",
    ]
  ) {
    assertEquals(rankPolicy(other), undefined, String(other));
  }
  assertEquals([rankLimit(8), rankLimit("energy:0.5"), rankLimit(undefined)], [8, Infinity, undefined]);
});

Deno.test("chooseRanks() by energy takes the least rank that keeps it, module by module", () => {
  assertEquals(chooseRanks({ kind: "energy", number: 0.75 }, MODULES), [1, 3, 1]);
  assertEquals(chooseRanks({ kind: "energy", number: 0.95 }, MODULES), [2, 4, 1]);
  assertEquals(chooseRanks({ kind: "energy", number: 1 }, MODULES), [4, 4, 1]);
});

Deno.test("chooseRanks() uniformly takes the least rank that keeps the energy of all modules together", () => {
  // Σσ² = 126.25 + 36 + 0.01; rank 1 keeps 109.01, rank 2 143.01, rank 3 153.01.
  assertEquals(chooseRanks({ kind: "uniform", number: 0.67 }, MODULES), [1, 1, 1]);
  assertEquals(chooseRanks({ kind: "uniform", number: 0.88 }, MODULES), [2, 2, 1]);
  assertEquals(chooseRanks({ kind: "uniform", number: 0.9 }, MODULES), [3, 3, 1]);
});

Deno.test("chooseRanks() by budget keeps at least as much energy as any other ranks of at most that cost", () => {
  const random = seeded(3);
  for (let round = 0; round < 20; round++) {
    const modules = Array.from({ length: 3 }, () => ({
      sigma: Array.from({ length: 4 }, () => random()).sort((x, y) => y - x),
      cost: 100,
    }));
    const budget = 1 + 3 * random();
    const chosen = chooseRanks({ kind: "budget", number: budget }, modules);
    const cost = (ranks: readonly number[]) => ranks.reduce((sum, rank) => sum + 100 * rank, 0);
    const energy = (ranks: readonly number[]) =>
      modules.reduce(
        (sum, { sigma }, m) => sum + sigma.slice(0, ranks[m]).reduce((part, x) => part + x ** 2, 0),
        0,
      );
    assert(cost(chosen) <= 300 * budget);
    for (let index = 0; index < 64; index++) {
      const other = [index % 4, Math.floor(index / 4) % 4, Math.floor(index / 16)].map((rank) => rank + 1);
      if (cost(other) <= 300 * budget) {
        assert(energy(other) <= energy(chosen) + 1e-12, `${other} beats ${chosen}`);
      }
    }
  }
});

Deno.test("chooseRanks() gives every module rank 1 at least, also where the delta is zero", () => {
  const zero = [{ sigma: [], cost: 10 }, { sigma: [0, 0], cost: 10 }];
  for (const kind of ["energy", "uniform", "budget"] as const) {
    assertEquals(chooseRanks({ kind, number: 1 }, zero), [1, 1], kind);
  }
});
