import { checkExample } from "./test_support/check_example.ts";
import { openSoftwareDevice } from "./test_support/software_device.ts";
import { AS_REFERENCE, TINY_LLAMA } from "./test_support/tiny_llama.ts";

// Two float32 computations of four layers: each strays from the exact result by about 1e-6.
checkExample(TINY_LLAMA, {
  deviceName: "the software driver",
  open: openSoftwareDevice,
  tolerance: 1e-5,
  asReference: AS_REFERENCE,
});
