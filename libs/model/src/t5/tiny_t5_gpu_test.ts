import { checkExample } from "../test_support/check_example.ts";
import { exampleModel } from "../test_support/example_model.ts";
import { openSoftwareDevice } from "../test_support/software_device.ts";

// Two float32 computations of six blocks: each strays from the exact result by about 1e-6.
checkExample(exampleModel("tiny-t5"), {
  deviceName: "the software driver",
  open: openSoftwareDevice,
  tolerance: 1e-5,
});
