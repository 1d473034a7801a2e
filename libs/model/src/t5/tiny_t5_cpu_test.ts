import { CpuDevice } from "@lora-loom/tensor";
import { checkExample } from "../test_support/check_example.ts";
import { exampleModel } from "../test_support/example_model.ts";

// The references were computed in float32, so they, not the float64 pass, set the tolerance.
checkExample(exampleModel("tiny-t5"), {
  deviceName: "cpu",
  open: () => Promise.resolve(new CpuDevice()),
  tolerance: 1e-5,
});
