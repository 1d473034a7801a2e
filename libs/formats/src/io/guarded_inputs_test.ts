import { join } from "node:path";
import { assertRefused, inTemporaryFolder } from "../test_support.ts";
import { refuseInputs } from "./guarded_inputs.ts";

Deno.test("refuseInputs() refuses an output that is or contains an input, through links too", () =>
  inTemporaryFolder(async (folder) => {
    const input = join(folder, "inputs/adapter");
    await Deno.mkdir(input, { recursive: true });
    await Deno.symlink(join(folder, "inputs"), join(folder, "link"));
    const refuse = (output: string) =>
      assertRefused(() => Promise.try(() => refuseInputs(output, [input])), "output_is_input");
    for (const output of [input, join(folder, "inputs"), folder, "/", join(folder, "link/adapter")]) {
      await refuse(output);
    }
    for (const output of [join(input, "merged"), join(folder, "inputs/adapter2")]) {
      refuseInputs(output, [input]);
    }
  }));
