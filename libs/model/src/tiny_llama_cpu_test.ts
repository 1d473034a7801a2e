import { CpuDevice } from "@lora-loom/tensor";
import { checkTinyLlama } from "./test_support/check_tiny_llama.ts";

// The references were computed in float32, so they, not the float64 pass, set the tolerance.
checkTinyLlama("cpu", () => Promise.resolve(new CpuDevice()), 1e-5);
