import { join } from "node:path";
import { assertRefused, inTemporaryFolder } from "../test_support.ts";
import { refuseInputs } from "./guarded_inputs.ts";

Deno.test("refuseInputs() refuses an output that is or contains an input, through links too", () =>
  inTemporaryFolder(async (folder) => {
    const input = join(folder, "inputs/adapter");
    await Deno.mkdir(input, { recursive: true });
    await Deno.symlink(join(folder, "inputs"), join(folder, "link"));
    const refuse = (output: string) =>
      assertRefused(() => Promise.try(() => refuseInputs(output, { inputs: [input] })), "output_is_input");
    for (const output of [input, join(folder, "inputs"), folder, "/", join(folder, "link/adapter")]) {
      await refuse(output);
    }
    for (const output of [join(input, "merged"), join(folder, "inputs/adapter2")]) {
      refuseInputs(output, { inputs: [input] });
    }
  }));

Deno.test("refuseInputs() refuses an output inside a base model's folder too", () =>
  inTemporaryFolder(async (folder) => {
    const model = join(folder, "models/base");
    for (const output of [join(model, "merged"), model, join(folder, "models")]) {
      await assertRefused(
        () => Promise.try(() => refuseInputs(output, { inputs: [], models: [model] })),
        "output_is_input",
      );
    }
    refuseInputs(join(folder, "models/base-merged"), { inputs: [], models: [model] });
  }));
