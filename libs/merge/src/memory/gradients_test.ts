import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { CpuDevice } from "@lora-loom/tensor";
import { MergeError } from "../errors.ts";
import type { MemoryChoice } from "../recipe/recipe.ts";
import { requireResidentWeights } from "./gradients.ts";

const SMALL = { parameters: 1000 };
/** More than any machine that runs this test has memory for. */
const LARGE = { parameters: 2 ** 50 };

function refusal(shapes: { readonly parameters: number }, memory: MemoryChoice): MergeError {
  return assertThrows(
    () => requireResidentWeights("refine", new CpuDevice(), shapes, memory, "base"),
    MergeError,
  );
}

Deno.test("requireResidentWeights() lets pass what is resident, or becomes it", () => {
  const device = new CpuDevice();
  requireResidentWeights("refine", device, SMALL, { weights: "auto" }, "base");
  requireResidentWeights("refine", device, LARGE, { weights: "resident" }, "base");
  requireResidentWeights("refine", device, SMALL, { weights: "auto", deviceGib: 1 }, "base");
});

Deno.test("requireResidentWeights() refuses weights that are or would be streamed, with their size", () => {
  assertEquals(refusal(SMALL, { weights: "streamed" }).code, "weights_streamed");
  const large = refusal(LARGE, { weights: "auto" });
  assertEquals(large.code, "weights_streamed");
  // Eight bytes each on the CPU.
  assertStringIncludes(large.message, `${2 ** 23}.0 GiB`);
  assertStringIncludes(large.fix, "leave refine out");
});

Deno.test("requireResidentWeights() refuses weights beyond the limit that the recipe gives", () => {
  const error = refusal({ parameters: 2 ** 28 }, { weights: "auto", deviceGib: 1 });
  assertEquals(error.code, "not_enough_device_memory");
  assertStringIncludes(error.message, "2.0 GiB; memory.device_gib allows 1 GiB");
});
