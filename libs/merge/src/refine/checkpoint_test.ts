import { assertEquals } from "@std/assert";
import { readdirSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { inTemporaryFolder } from "@lora-loom/testing";
import { CheckpointFolder } from "./checkpoint.ts";
import type { HostArray } from "../resume/packed.ts";
import type { HostPair } from "./learner.ts";

function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  return inTemporaryFolder((parent) => body(join(parent, "merged.refining")));
}

function pair(values: HostArray): HostPair {
  return { a: { shape: [1, values.length], values }, b: { shape: [values.length, 1], values } };
}

const history = {
  losses: [1.5],
  stateLosses: [1],
  checks: [{ step: 0, agreement: { tasks: { x: 0.5 }, mean: 0.5 } }],
};

function learner(values: HostArray) {
  return new Map(
    ["m", "n"].map((module) => [module, { value: pair(values), mean: pair(values), square: pair(values) }]),
  );
}

Deno.test("CheckpointFolder gives back exactly what was saved, float64 and float32, and overwrites it", async () => {
  await inFolder(async (path) => {
    const folder = new CheckpointFolder(path, "print");
    assertEquals(await folder.load(), undefined);
    for (const values of [Float64Array.of(1 / 3, -0, 5e-324), Float32Array.of(0.1, 3)]) {
      const saved = { step: 7, history, learner: learner(values), best: undefined };
      await folder.save(saved);
      assertEquals(await folder.load(), saved);
      const withBest = { ...saved, step: 8, best: new Map([["m", pair(values)], ["n", pair(values)]]) };
      await folder.save(withBest);
      assertEquals(await folder.load(), withBest);
    }
    await folder.remove();
    assertEquals(readdirSync(path), []);
  });
});

Deno.test("CheckpointFolder tells a checkpoint of another refinement, or a damaged one, from none", async () => {
  await inFolder(async (path) => {
    await new CheckpointFolder(path, "one").save({
      step: 1,
      history,
      learner: learner(Float32Array.of(1)),
      best: undefined,
    });
    assertEquals(await new CheckpointFolder(path, "other").load(), "foreign");
    await writeFile(join(path, "checkpoint.bin"), "damaged");
    assertEquals(await new CheckpointFolder(path, "one").load(), "foreign");
  });
});
