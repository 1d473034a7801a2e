import { assert } from "@std/assert";
import { CpuDevice } from "@lora-loom/tensor";
import { relativeError } from "@lora-loom/testing";
import { openModel } from "./open_model.ts";
import { checkExample } from "./test_support/check_example.ts";
import { AS_REFERENCE, TINY_LLAMA } from "./test_support/tiny_llama.ts";

// The references were computed in float32, so they, not the float64 pass, set the tolerance.
checkExample(TINY_LLAMA, {
  deviceName: "cpu",
  open: () => Promise.resolve(new CpuDevice()),
  tolerance: 1e-5,
  asReference: AS_REFERENCE,
});

Deno.test("openModel() with exact rotary frequencies stays near the references of a rounded model", async () => {
  await using device = new CpuDevice();
  using model = await openModel(device, TINY_LLAMA.base);
  const reference = await TINY_LLAMA.openReference();
  using logits = model.forward([reference.tokens("language")], new Map());
  const error = relativeError(await device.download(logits), reference.baseLogits("language"));
  assert(error > 1e-5 && error < 2e-3, `relative error ${error}`);
});
