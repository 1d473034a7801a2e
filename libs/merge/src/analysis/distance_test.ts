import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import type { Adapter } from "@lora-loom/formats";
import { compareAdapters } from "./distance.ts";

/** An adapter of rank 1 and width 2 by the values of A; B is all ones. */
function adapter(path: string, modules: Readonly<Record<string, readonly number[]>>): Adapter {
  const stored = (values: readonly number[]) => ({
    readFloat32: () => Promise.resolve(Float32Array.from(values)),
  });
  const entries = Object.entries(modules).map(([name, a]) =>
    [name, {
      name,
      rank: 1,
      inFeatures: 2,
      outFeatures: 2,
      scale: 1,
      a: stored(a),
      b: stored([1, 1]),
    }] as const
  );
  return { path, modules: new Map(entries) } as unknown as Adapter;
}

Deno.test("compareAdapters() gives the distance of each module and counts what one side lacks as zero", async () => {
  const a = adapter("/in/a", { q: [3, 0], v: [1, 1] });
  const b = adapter("/in/b", { q: [2, 0] });
  const { modules, overall, worst, onlyInA } = await compareAdapters(a, b);
  assertEquals([modules.q!.toFixed(12), modules.v, worst.module], ["0.500000000000", Infinity, "v"]);
  // ‖ΔA − ΔB‖² is 2 · 1 at q and 2 · 2 at v, ‖ΔB‖² is 2 · 4.
  assertEquals(overall.toFixed(12), Math.sqrt(6 / 8).toFixed(12));
  assertEquals(onlyInA, ["v"]);
});

Deno.test("compareAdapters() names the adapter and the module that holds NaN", async () => {
  const sound = adapter("/in/sound", { q: [1, 2], v: [1, 2] });
  const broken = adapter("/in/broken", { q: [1, 2], v: [1, NaN] });
  for (const pair of [[sound, broken], [broken, sound]] as const) {
    const error = await assertRejects(() => compareAdapters(...pair)) as Error & {
      code: string;
      where: string;
    };
    assertEquals([error.code, error.where], ["not_finite", "/in/broken: v lora_A"]);
  }
});

Deno.test("compareAdapters() says that nothing is in common when no module is", async () => {
  const [a, b] = [adapter("/in/a", { q: [1, 2] }), adapter("/in/b", { k: [1, 2], v: [1, 2] })];
  const error = await assertRejects(() => compareAdapters(a, b)) as Error & { code: string; where: string };
  assertEquals([error.code, error.where], ["nothing_in_common", "/in/a"]);
  assertStringIncludes(error.message, "/in/a has 1, the first q; /in/b has 2, the first k");
});
