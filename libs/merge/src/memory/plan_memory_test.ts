import {
  assertEquals,
  assertGreater,
  assertLess,
  assertLessOrEqual,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { MergeError } from "../errors.ts";
import type { MemoryChoice } from "../recipe/recipe.ts";
import { type Machine, planMemory } from "./plan_memory.ts";
import type { Workload } from "./workload.ts";

const GIB = 2 ** 30;
const AMPLE: Machine = { freeHostBytes: 64 * GIB, freeScratchBytes: 64 * GIB };
const AUTO: MemoryChoice = { weights: "auto" };

/** Eight layers of one stage of 4096 inputs and outputs: 0.5 GiB of widened weights beside embeddings of the same size. */
const WORK: Workload = {
  base: {
    stages: Array.from({ length: 8 }, (_, layer) => ({
      sites: [{ module: `${layer}`, inFeatures: 4096, outFeatures: 4096, writesStream: true }],
    })),
    layers: 8,
    hiddenSize: 4096,
    vocabularySize: 32768,
    keyValueWidth: 8192,
    parameters: 8 * 4096 * 4096 + 32768 * 4096,
    storedBytes: 2 * (8 * 4096 * 4096 + 32768 * 4096),
  },
  adapted: new Set(["0", "1", "2", "3", "4", "5", "6", "7"]),
  adapterElements: 1e6,
  mergedElements: 1e6,
  tasks: [{ tokens: 12800, longest: 256 }, { tokens: 12800, longest: 256 }],
  answers: [],
  corrects: false,
  holdsOut: false,
  passes: 1,
  maxNewTokens: 32,
  residency: "resident",
  device: { elementBytes: 4, onHost: false, packs: false, hostSolverLimit: 512 },
};

function plan(choice: MemoryChoice, { work = WORK, machine = AMPLE, streamable = true } = {}) {
  return planMemory(work, choice, machine, { streamable, where: "base" });
}

function refusal(...args: Parameters<typeof plan>): MergeError {
  const error = assertThrows(() => plan(...args), MergeError);
  assertEquals([error.blame, error.where], ["request", "base"]);
  return error;
}

Deno.test("planMemory() keeps weights as the recipe says, and as the model's size says for auto", () => {
  assertEquals(plan(AUTO).residency, "resident");
  assertEquals(plan(AUTO, { work: { ...WORK, residency: "streamed" } }).residency, "streamed");
  assertEquals(plan({ weights: "streamed" }).residency, "streamed");
});

Deno.test("planMemory() streams weights, takes smaller chunks and keeps fewer states as the device's limit falls", () => {
  const plans = [4, 3, 2, 1.5, 0.95].map((deviceGib) => ({ deviceGib, ...plan({ ...AUTO, deviceGib }) }));
  for (const { deviceGib, needs } of plans) assertLessOrEqual(needs.device_bytes, deviceGib * GIB);
  assertEquals([plans[0]!.residency, plans.at(-1)!.residency], ["resident", "streamed"]);
  assertLess(plans.at(-1)!.budgets.tokensPerChunk, plans[0]!.budgets.tokensPerChunk);
  assertLess(plans.at(-1)!.budgets.deviceBytes, plans[0]!.budgets.deviceBytes);
});

Deno.test("planMemory() lets states wait in as much host memory as the recipe allows", () => {
  const [least, more] = [1.5, 2].map((hostGib) => plan({ ...AUTO, deviceGib: 1.2, hostGib }));
  assertLessOrEqual(least!.needs.host_bytes, 1.5 * GIB);
  assertGreater(more!.budgets.hostBytes, least!.budgets.hostBytes);
  assertLess(more!.needs.scratch_bytes, least!.needs.scratch_bytes);
});

Deno.test("planMemory() refuses what does not fit the device, the host or the disk, with the numbers and a way out", () => {
  const device = refusal({ ...AUTO, deviceGib: 0.5 });
  assertEquals(device.code, "not_enough_device_memory");
  assertStringIncludes(device.message, "memory.device_gib allows 0.5 GiB");
  assertStringIncludes(device.message, "weights of a stage");
  assertStringIncludes(device.fix, "raise memory.device_gib");

  const host = refusal({ ...AUTO, hostGib: 0.5 });
  assertEquals(host.code, "not_enough_host_memory");
  assertStringIncludes(host.message, "memory.host_gib allows 0.5 GiB");

  const busy = refusal(AUTO, { machine: { ...AMPLE, freeHostBytes: 0.25 * GIB } });
  assertEquals(busy.code, "not_enough_host_memory");
  assertStringIncludes(busy.message, "0.25 GiB are free");

  const disk = refusal({ ...AUTO, deviceGib: 1.2 }, { machine: { ...AMPLE, freeScratchBytes: 1000 } });
  assertEquals(disk.code, "not_enough_scratch");
  assertStringIncludes(disk.fix, "TMPDIR");
});

Deno.test("planMemory() says that streaming would help where a recipe or a family asks for resident weights", () => {
  const error = refusal({ weights: "resident", deviceGib: 1 });
  assertStringIncludes(error.message, "resident weights 1.1 GiB");
  assertStringIncludes(error.fix, "set memory.weights to streamed");
  assertEquals(refusal({ ...AUTO, deviceGib: 1 }, { streamable: false }).code, "not_enough_device_memory");
});
