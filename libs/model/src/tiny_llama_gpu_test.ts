import { checkTinyLlama } from "./test_support/check_tiny_llama.ts";
import { openSoftwareDevice } from "./test_support/software_device.ts";

// Two float32 computations of four layers: each strays from the exact result by about 1e-6.
checkTinyLlama("the software driver", openSoftwareDevice, 1e-5);
